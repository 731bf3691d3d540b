"""Unit vocoders: their common interface, CodeHiFiGAN, the inverse-STFT vocoder, and the losses that train them."""
