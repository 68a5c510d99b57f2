// Memory as words of 32 bits.
struct fill_args {
	u32 *dst;
	s64 n;
	u32 v;
};
KERNEL(fill_words, fill_args) {
	EACH(i, a.n) a.dst[i] = a.v;
}

struct copy_args {
	u32 *dst;
	const u32 *src; // may be pinned memory of the host
	s64 n;
};
KERNEL(copy_words, copy_args) {
	EACH(i, a.n) a.dst[i] = a.src[i];
}
