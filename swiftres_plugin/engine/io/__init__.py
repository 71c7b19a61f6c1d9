"""Room 3: the only place that opens files. Foreign names, units and conventions end here."""
