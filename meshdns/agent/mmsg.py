"""Inside: what recvmmsg and sendmmsg take, of C, as cffi reads it.

Nothing enters; `ffi` leaves. It is generated, and a test holds that it says what `DECLARED` says: to read C at each start
needs pycparser, which takes 1.4 MB and 60 ms. It must never know whose datagrams they are.
"""

import _cffi_backend  # type: ignore[import-untyped]

DECLARED = """
    struct iovec { void *iov_base; size_t iov_len; };
    struct msghdr {
        void *msg_name; unsigned int msg_namelen; struct iovec *msg_iov; size_t msg_iovlen;
        void *msg_control; size_t msg_controllen; int msg_flags;
    };
    struct mmsghdr { struct msghdr msg_hdr; unsigned int msg_len; };
    struct cmsghdr { size_t cmsg_len; int cmsg_level; int cmsg_type; };
    int recvmmsg(int, struct mmsghdr *, unsigned int, int, void *);
    int sendmmsg(int, struct mmsghdr *, unsigned int, int);
"""

# By cffi.FFI().cdef(DECLARED), .set_source(__name__, None), .emit_python_code(path): cffi's "out-of-line ABI mode".
# fmt: off
# ruff: noqa: E501
ffi = _cffi_backend.FFI('meshdns.agent.mmsg',
    _version = 0x2601,
    _types = b'\x00\x00\x01\x0D\x00\x00\x07\x01\x00\x00\x11\x03\x00\x00\x08\x01\x00\x00\x07\x01\x00\x00\x00\x0F\x00\x00\x01\x0D\x00\x00\x07\x01\x00\x00\x02\x11\x00\x00\x08\x01\x00\x00\x07\x01\x00\x00\x13\x03\x00\x00\x00\x0F\x00\x00\x1C\x01\x00\x00\x00\x09\x00\x00\x10\x03\x00\x00\x01\x09\x00\x00\x02\x09\x00\x00\x03\x09\x00\x00\x00\x01',
    _globals = (b'\x00\x00\x06\x23recvmmsg',0,b'\x00\x00\x00\x23sendmmsg',0),
    _struct_unions = ((b'\x00\x00\x00\x0E\x00\x00\x00\x02cmsghdr',b'\x00\x00\x0D\x11cmsg_len',b'\x00\x00\x01\x11cmsg_level',b'\x00\x00\x01\x11cmsg_type'),(b'\x00\x00\x00\x10\x00\x00\x00\x02iovec',b'\x00\x00\x0B\x11iov_base',b'\x00\x00\x0D\x11iov_len'),(b'\x00\x00\x00\x11\x00\x00\x00\x02mmsghdr',b'\x00\x00\x12\x11msg_hdr',b'\x00\x00\x03\x11msg_len'),(b'\x00\x00\x00\x12\x00\x00\x00\x02msghdr',b'\x00\x00\x0B\x11msg_name',b'\x00\x00\x03\x11msg_namelen',b'\x00\x00\x0F\x11msg_iov',b'\x00\x00\x0D\x11msg_iovlen',b'\x00\x00\x0B\x11msg_control',b'\x00\x00\x0D\x11msg_controllen',b'\x00\x00\x01\x11msg_flags')),
)
