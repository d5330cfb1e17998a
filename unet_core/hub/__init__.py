"""The Hugging Face Hub: repositories that are read as other addresses are, and what is pushed there."""
