"""The report of a run as one HTML file: `figures` gathers numbers, `write` joins them with the page that draws them."""
