"""What is run: suites of cases."""
