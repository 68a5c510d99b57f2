package text

import (
	"hash/maphash"
	"sync"
	"sync/atomic"
)

// cached is a model that caches the tokens of short pieces seen recently. It
// holds at most one piece per hash, so that its size is bounded and readers
// never wait.
type cached struct {
	tokenModel
	once  sync.Once
	seed  maphash.Seed
	slots []atomic.Pointer[cachedPiece]
}

const cacheSlots = 1 << 16

// cachedPiece is a piece and its tokens, which are consecutive without gaps. It
// is one object of 128 bytes, because following pointers would take longer than
// the rest of a look-up.
type cachedPiece struct {
	text   [84]byte
	ids    [8]int32
	ends   [8]uint8 // of the tokens in text
	length uint8    // of text
	count  uint8    // of tokens
}

func newCached(m tokenModel) *cached { return &cached{tokenModel: m} }

func (c *cached) encode(dst []Token, word []byte, at int) []Token {
	if len(word) > len(cachedPiece{}.text) {
		return c.tokenModel.encode(dst, word, at)
	}
	c.once.Do(func() {
		c.seed = maphash.MakeSeed()
		c.slots = make([]atomic.Pointer[cachedPiece], cacheSlots)
	})
	slot := &c.slots[maphash.Bytes(c.seed, word)%cacheSlots]
	if p := slot.Load(); p != nil && string(p.text[:p.length]) == string(word) {
		from := at
		for k, id := range p.ids[:p.count] {
			to := at + int(p.ends[k])
			dst = append(dst, Token{id, from, to})
			from = to
		}
		return dst
	}
	first := len(dst)
	dst = c.tokenModel.encode(dst, word, at)
	if p := remember(word, dst[first:], at); p != nil {
		slot.Store(p)
	}
	return dst
}

// remember makes the cache entry of a piece, or nil when its tokens are too
// many or leave gaps.
func remember(word []byte, tokens []Token, at int) *cachedPiece {
	p := &cachedPiece{length: uint8(len(word)), count: uint8(len(tokens))}
	if len(tokens) > len(p.ids) {
		return nil
	}
	copy(p.text[:], word)
	from := at
	for k, t := range tokens {
		if t.Start != from {
			return nil
		}
		p.ids[k], p.ends[k] = t.ID, uint8(t.End-at)
		from = t.End
	}
	return p
}
