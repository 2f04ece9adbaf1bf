"""Triton kernels, installed as ``fastrec.kernels``: one file an operator. None exists yet."""
