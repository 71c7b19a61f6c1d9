"""Threads of the engine's tests: two, and asleep while they wait. Set before torch or faiss is loaded."""
import os

os.environ.setdefault("OMP_WAIT_POLICY", "passive")
os.environ.setdefault("OMP_NUM_THREADS", "2")
