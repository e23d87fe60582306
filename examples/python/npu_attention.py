"""Attention in integers from Python, in process, through the shared library of crates/attn-c (ctypes; needs numpy alone).

    attention = NPUAttention(backend="auto", library="target/release/libattn.so")
    out = attention(Q_int8, K_int8, V_int8)

The name is that of the older kernel's call; where it runs is what `backend` says, and `attention.backend` says what was chosen: an
NPU only with backend="npu", xclbin=FILE and a library that was built with it.
"""

import ctypes
import operator
import os
import threading
import weakref
from ctypes import POINTER, byref, c_char_p, c_int32, c_size_t, c_void_p

import numpy as np

# Standard normal numbers are quantised with about this scale, if their largest magnitude becomes 127: it is about 4.
NORMAL = 1 / 32


class AttnError(Exception):
    """What the library refused, with its message; `status` is one of `enum attn_status`."""

    def __init__(self, status, message):
        super().__init__(message)
        self.status = status


class NPUAttention:
    """softmax(Q·Kᵀ/√d)·V over int8 arrays, or float32 ones.

    backend: auto, scalar, avx512-vnni, avx512-bw, avx-vnni, avx2, kernel, aie2-model or npu; all give the same bits.
    q_scale, k_scale, v_scale: what a step of each int8 array is worth, a number or an array that broadcasts to its heads. The
        default suits standard normal numbers; `np.abs(X).max() / 127` suits `(X * 127 / np.abs(X).max()).astype(np.int8)`; 1 suits
        raw integers.
    out_scale: the same of the output. None: each head takes the whole range, its largest magnitude becomes about 127, for
        which attention is computed twice. `out_scales` are those of the last call, an array of q.shape[:-2].
    xclbin: what an NPU is to run.
    library: libattn.so; if not given, the environment's ATTN_LIBRARY.

    Calls from several threads wait for each other, without holding Python's lock.
    """

    def __init__(
        self,
        backend="auto",
        *,
        q_scale=NORMAL,
        k_scale=NORMAL,
        v_scale=NORMAL,
        out_scale=None,
        xclbin=None,
        library=None,
    ):
        self._library = _load(library)
        self._scales = q_scale, k_scale, v_scale
        self._out_scale = out_scale
        self.out_scales = None
        self._lock = threading.Lock()
        self._backend = c_void_p()
        backend, xclbin = _c_string("backend", backend), None if xclbin is None else _c_string("xclbin", xclbin)
        self._check(self._library.attn_open(backend, xclbin, byref(self._backend)))
        self._close = weakref.finalize(self, self._library.attn_close, self._backend.value)
        # A thread of a program that ends may still compute.
        self._close.atexit = False
        self.backend = self._library.attn_name(self._backend).decode()

    def close(self):
        """Closes the backend, which is also done when nobody holds this any longer."""
        with self._lock:
            self._backend = None
            self._close()

    def __call__(self, q, k, v, *, valid_keys=None, causal=None, mask=None):
        """Returns attention in q's shape and type.

        q is [.., heads, queries, dim], k and v are [.., heads, keys, dim], all int8 or all float32, which are quantised and have
        no use for scales. Fewer heads of k and v than of q are shared by neighbours. Arrays in C order are not copied.

        valid_keys: only so many keys are seen. causal: query i sees the keys j <= i + causal, the number of cached keys.
        mask: bool, broadcasts to [.., queries, keys], true where a key is seen.
        """
        q, k, v = (np.require(x, requirements="CA") for x in (q, k, v))
        if not q.dtype == k.dtype == v.dtype or q.dtype not in (np.int8, np.float32):
            raise TypeError(f"q, k, v: got {q.dtype}, {k.dtype}, {v.dtype}, expected int8 or float32 for all")
        batches, dims = ([(*x.shape[:-3], x.ndim) for x in (q, k)], [x.shape[-1:] for x in (q, k)])
        if q.ndim < 2 or k.shape != v.shape or batches[0] != batches[1] or dims[0] != dims[1]:
            shapes = ", ".join(str(list(x.shape)) for x in (q, k, v))
            raise ValueError(f"q, k, v: got {shapes}, expected [.., heads, queries, dim], [.., heads, keys, dim] twice")
        heads, kv_heads = (int(np.prod(x.shape[:-2])) for x in (q, k))
        call = (_Heads if q.dtype == np.int8 else _HeadsF32)(q.shape[-1], heads, kv_heads)
        for name, array in ("query", q), ("key", k), ("value", v):
            setattr(call, name, array.ctypes.data)
            setattr(call, f"{name}_len", array.size)
        # They live as long as the call.
        kept = [call.mask.set(name, heads, number) for name, number in (("valid_keys", valid_keys), ("causal", causal))]
        if mask is not None:
            mask = np.asarray(mask)
            if mask.dtype != bool:
                raise TypeError(f"mask: got {mask.dtype}, expected bool, true where a key is seen")
            mask = np.broadcast_to(mask, q.shape[:-1] + k.shape[-2:-1])
            kept.append(np.ascontiguousarray(mask))
            call.mask.allowed = kept[-1].ctypes.data
            call.mask.allowed_shape[:] = heads, q.shape[-2], k.shape[-2]
        out = np.empty_like(q)
        with self._lock:
            if q.dtype == np.float32:
                self._check(self._library.attn_attend_f32(self._backend, byref(call), out.ctypes.data, out.size))
            else:
                self._attend(call, q, k, v, out)
        return out

    def _attend(self, call, q, k, v, out):
        """Writes attention in int8 to out."""
        scales = [_each(scale, x.shape[:-2]) for scale, x in zip(self._scales, (q, k, v))]
        call.query_scales, call.key_scales, call.value_scales = (x.ctypes.data for x in scales)

        def attend(out_scales):
            call.out_scales = out_scales.ctypes.data
            self._check(self._library.attn_attend(self._backend, byref(call), out.ctypes.data, out.size))

        if self._out_scale is not None:
            out_scales = _each(self._out_scale, q.shape[:-2])
        else:
            # An output is a mean of values: with their scale it fits, and shows how much of the range it takes.
            out_scales = np.resize(np.repeat(scales[2], max(call.heads // max(call.kv_heads, 1), 1)), call.heads)
            attend(out_scales)
            largest = np.abs(out.reshape(call.heads, -1).astype(np.int16)).max(axis=1, initial=1)
            out_scales = out_scales * (largest / np.float32(127)).astype(np.float32)
        attend(out_scales)
        self.out_scales = out_scales.reshape(q.shape[:-2])

    def _check(self, status):
        if status:
            raise AttnError(status, self._library.attn_last_error().decode())


class _Mask(ctypes.Structure):
    _fields_ = [
        ("valid_keys", c_void_p),
        ("causal", c_void_p),
        ("allowed", c_void_p),
        ("allowed_shape", c_size_t * 3),
    ]

    def set(self, name, heads, number):
        """The same number for every head; returns what holds them."""
        if number is None:
            return None
        # ctypes takes any number, and what it has no room for is lost.
        if not 0 <= operator.index(number) < 2**63:
            raise ValueError(f"{name}: got {number}, expected 0 to 2^63 - 1")
        numbers = (c_size_t * heads)(*[number] * heads)
        setattr(self, name, ctypes.addressof(numbers))
        return numbers


_SHAPE = [(name, c_size_t) for name in ("dim", "heads", "kv_heads")]
_TENSORS = [
    field for name in ("query", "key", "value") for field in ((name, c_void_p), (f"{name}_len", c_size_t))
]


class _HeadsF32(ctypes.Structure):
    _fields_ = [*_SHAPE, *_TENSORS, ("mask", _Mask)]


class _Heads(ctypes.Structure):
    _scales = [(f"{name}_scales", c_void_p) for name in ("query", "key", "value", "out")]
    _fields_ = [*_SHAPE, *_TENSORS, *_scales, ("mask", _Mask)]


def _each(scale, heads):
    """A scale for each head."""
    return np.ascontiguousarray(np.broadcast_to(np.asarray(scale, np.float32), heads)).ravel()


def _c_string(name, text):
    text = os.fsencode(text)
    if b"\0" in text:
        raise ValueError(f"{name}: got {text}, expected no zero byte")
    return text


def _load(path):
    path = path or os.environ.get("ATTN_LIBRARY")
    if not path:
        raise FileNotFoundError(
            "libattn: got no library, expected library=FILE or ATTN_LIBRARY=FILE (`cargo build --release --package attn-c` makes"
            " target/release/libattn.so)"
        )
    library = ctypes.CDLL(os.fspath(path))
    for name, result, arguments in [
        ("attn_version", c_char_p, []),
        ("attn_last_error", c_char_p, []),
        ("attn_open", c_int32, [c_char_p, c_char_p, POINTER(c_void_p)]),
        ("attn_name", c_char_p, [c_void_p]),
        ("attn_attend", c_int32, [c_void_p, POINTER(_Heads), c_void_p, c_size_t]),
        ("attn_attend_f32", c_int32, [c_void_p, POINTER(_HeadsF32), c_void_p, c_size_t]),
        ("attn_close", None, [c_void_p]),
    ]:
        function = getattr(library, name)
        function.restype, function.argtypes = result, arguments
    return library
