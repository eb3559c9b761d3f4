"""Values as source text of the kernel's language."""
