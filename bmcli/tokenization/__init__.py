"""Fitted tokenizers, and how they are fitted; `bmcli.tokens` holds the kinds that a recipe names."""
