"""Unit vocoders: the common interface, CodeHiFiGAN, the inverse-STFT vocoder, and their training losses."""
