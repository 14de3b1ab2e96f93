"""Who calls which weight what: the released code with timm, and transformers."""
