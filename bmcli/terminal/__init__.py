"""What a user sees: results on standard output, messages and progress displays on standard error."""
