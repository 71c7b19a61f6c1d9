"""Room 3: one file per step of the method. A stage reads no files, prints nothing and never imports another stage."""
