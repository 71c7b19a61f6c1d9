"""The refinement engine: torch and FAISS, no Scipion."""
