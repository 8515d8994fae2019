//! Static pods: a folder of Pod YAMLs that are kept running.
