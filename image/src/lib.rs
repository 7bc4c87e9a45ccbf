//! Container images by content.
