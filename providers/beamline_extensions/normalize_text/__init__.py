"""A pre step that tidies prompts: Unicode form, white space, control characters, case."""
