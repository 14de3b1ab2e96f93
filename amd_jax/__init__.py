"""amd_jax: masked distillation of small vision transformers (AMD, DMAE, MAE, VideoMAE) in JAX."""
