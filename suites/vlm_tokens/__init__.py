"""Visual-token reduction in vision-language models: prefill cost and answers against tokens kept, layer by layer."""
