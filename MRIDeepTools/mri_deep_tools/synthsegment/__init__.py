"""SynthSegment: any brain scan to labels, volumes and quality scores; its generative model and training."""
