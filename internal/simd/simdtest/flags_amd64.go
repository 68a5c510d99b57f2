package simdtest

const watches = true

// flags is the exception flags of MXCSR; clearFlags clears them.
func flags() uint32

func clearFlags()
