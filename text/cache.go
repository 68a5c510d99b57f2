package text

import (
	"hash/maphash"
	"sync"
	"sync/atomic"
)

// wordCache remembers the tokens of pieces seen lately. It holds at most one
// piece for each hash, so that its size is bounded and no reader ever waits.
type wordCache struct {
	once  sync.Once
	seed  maphash.Seed
	slots []atomic.Pointer[cachedWord]
}

// cachedWord is a piece and its tokens, whose spans count from its beginning.
type cachedWord struct {
	word   string
	tokens []Token
}

const cacheSlots = 1 << 16

// find gives the place of a word and what is remembered there of it, or nil.
func (c *wordCache) find(word []byte) (slot *atomic.Pointer[cachedWord], known *cachedWord) {
	c.once.Do(func() {
		c.seed = maphash.MakeSeed()
		c.slots = make([]atomic.Pointer[cachedWord], cacheSlots)
	})
	slot = &c.slots[maphash.Bytes(c.seed, word)%cacheSlots]
	if known = slot.Load(); known != nil && known.word != string(word) {
		known = nil
	}
	return slot, known
}
