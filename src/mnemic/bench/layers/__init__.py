"""The recall suite of sequence-memory layers: tasks, training, runs that resume, tables and a plot."""
