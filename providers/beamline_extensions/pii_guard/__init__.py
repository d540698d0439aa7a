"""A validator that refuses prompts with personal data in them."""
