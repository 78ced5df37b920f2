//! Threat models: norms, radii and bounds.
