"""Methods of others to compare with, each as plain as it can be."""
