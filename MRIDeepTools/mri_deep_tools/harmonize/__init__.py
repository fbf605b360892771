"""Harmonize: T1-weighted brain scans of any site in one reference style (IGUANe), and predictions from them."""
