"""``python -m cryolithe.diagnosis``: compute the stored values of the self-test anew, after a change of models."""

from cryolithe.diagnosis.selftest import store_references

if __name__ == "__main__":
    store_references()
