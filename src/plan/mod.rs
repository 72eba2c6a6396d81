//! Graph and adapter abilities to a plan: fused steps, kernel variants, buffer slots.
