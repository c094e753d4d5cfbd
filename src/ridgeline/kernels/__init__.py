"""How it is computed: one folder per operator with inputs, reference and tolerance, one file per implementation."""
