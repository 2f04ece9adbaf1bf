"""Triton kernels, installed as ``fastrec.kernels``: one file an operator. They import triton; nothing else does."""
