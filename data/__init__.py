"""What goes in: records, templates, tokenizers, packing, batches and small worlds."""
