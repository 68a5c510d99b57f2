// Package disttest is what every transport must do, for the tests of transports.
package disttest

import (
	"bytes"
	"fmt"
	"slices"

	"github.com/carousel-ml/carousel/dist"
)

// Content makes a message of n bytes that none of another pair of ranks equals.
func Content(from, to, n int) []byte {
	b := make([]byte, n)
	for i := range b {
		b[i] = byte(i*7 + i>>8 + from*50 + to*10)
	}
	return b
}

// Exchange has t exchange messages of all lengths, each pair's two directions with lengths of their own, and in
// the end the longest ones between all at once, which fill all buffers. Every rank calls it. The error names what
// came otherwise than it was sent.
func Exchange(t dist.Transport, lengths []int) error {
	rank, size := t.Rank(), t.Size()
	for round := range len(lengths) + 1 {
		length := func(from, to int) int {
			if round == len(lengths) {
				return slices.Max(lengths)
			}
			return lengths[(round+from+2*to)%len(lengths)]
		}
		send, recv := make([][]byte, size), make([][]byte, size)
		for r := range size {
			send[r], recv[r] = Content(rank, r, length(rank, r)), make([]byte, length(r, rank))
		}
		recv[rank] = []byte("mine")
		if err := t.Exchange(send, recv); err != nil {
			return err
		}
		for r := range size {
			want := Content(r, rank, length(r, rank))
			if r == rank {
				want = []byte("mine")
			}
			if !bytes.Equal(recv[r], want) {
				return fmt.Errorf("round %d: rank %d got other bytes than rank %d sent", round, rank, r)
			}
			clear(send[r]) // it may be reused
		}
	}
	return nil
}
