//! cop
