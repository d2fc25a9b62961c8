"""The thin helper package behind the notebooks: one module per question a reader asks."""
