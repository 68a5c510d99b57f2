package train

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
)

// sharing is the ranks among which a context's computations are divided.
type sharing struct {
	world World
	own   context.Context // of this rank alone
	end   func()          // cancels the context that all ranks have
}

type sharingKey struct{}

// WithWorld returns a context under which [Share] divides its work among the ranks of
// w. All ranks then have to make the same calls in the same order, so no rank may leave
// them alone: the context is not cancelled with ctx but when the ranks have agreed on it,
// in a Share or in [Fit], and then on all of them. A nil w or one of a single rank, and
// a ctx that has a world already, return ctx.
func WithWorld(ctx context.Context, w World) context.Context {
	if w == nil || w.Size() == 1 || sharingOf(ctx) != nil {
		return ctx
	}
	all, cancel := context.WithCancelCause(context.WithoutCancel(ctx))
	s := &sharing{world: w, own: ctx}
	s.end = func() { cancel(context.Cause(ctx)) } // without a cause of its own: context.Canceled
	return context.WithValue(all, sharingKey{}, s)
}

// sharingOf returns the ranks of a context; nil for one process alone.
func sharingOf(ctx context.Context) *sharing {
	s, _ := ctx.Value(sharingKey{}).(*sharing)
	if s != nil && ctx.Done() == nil { // of context.WithoutCancel
		return &sharing{world: s.world, own: ctx, end: func() {}}
	}
	return s
}

// Ranks returns the number of ranks among which [Share] divides its work, 1 for one
// process.
func Ranks(ctx context.Context) int {
	if s := sharingOf(ctx); s != nil {
		return s.world.Size()
	}
	return 1
}

// end cancels a context on which all ranks have agreed to stop.
func end(ctx context.Context) {
	if s := sharingOf(ctx); s != nil {
		s.end()
	}
}

// Number is a number that ranks send each other with all its bits, which other kinds are
// made of: texts of bytes, tokens of int32.
type Number interface {
	uint8 | int32 | float32 | float64
}

// perRound is the number of parts that a rank computes before the results are exchanged:
// enough that small ones do not wait for messages, few enough that the others soon
// notice one that stops.
const perRound = 8

// Share computes the parts 0 to n-1 of a result, each on one of the ranks of
// [WithWorld]'s context, rank r those with i modulo the number of ranks r, and calls use
// with the result of every part, in their order and on every rank. So what use computes
// is the same on all ranks, and the same as that of one process, bit for bit. Without
// ranks each part is used as soon as it is computed. part may return the same memory
// again and again, and what use is given is valid until it returns. The context of part
// is cancelled at once when this rank is to stop.
//
// A cancellation on any rank ends the computation on all, with the error of ctx, and so
// does an error of part, which the other ranks name. Errors of use have to be the same on
// all ranks.
func Share[T Number](ctx context.Context, n int, part func(ctx context.Context, i int) ([]T, error), use func(i int, result []T) error) error {
	s := sharingOf(ctx)
	if s == nil {
		for i := range n {
			if err := ctx.Err(); err != nil {
				return err
			}
			result, err := part(ctx, i)
			if err == nil {
				err = use(i, result)
			}
			if err != nil {
				return err
			}
		}
		return nil
	}
	rank, size := s.world.Rank(), s.world.Size()
	for lo := 0; lo < n; lo += perRound * size {
		if err := ctx.Err(); err != nil { // all have agreed on it
			return err
		}
		hi := min(lo+perRound*size, n)
		message := []byte{fine}
		var own error
		for i := lo + rank; i < hi && own == nil; i += size {
			var result []T
			if own = s.own.Err(); own == nil {
				result, own = part(s.own, i)
			}
			message = binary.AppendUvarint(message, uint64(len(result)))
			message, _ = binary.Append(message, binary.LittleEndian, result) // slices of numbers have no errors
		}
		switch {
		case own != nil && s.own.Err() != nil:
			message = []byte{stopped}
		case own != nil:
			message = append([]byte{failed}, own.Error()...)
		}
		all, err := s.world.Share(message)
		if err != nil {
			return err
		}
		if err := s.outcome(ctx, all, own); err != nil {
			return err
		}
		for i := lo; i < hi; i++ {
			result, rest, err := next[T](all[i%size])
			if err != nil {
				return fmt.Errorf("train: part %d of %d from rank %d: %w", i, n, i%size, err)
			}
			all[i%size] = rest
			if err := use(i, result); err != nil {
				return err
			}
		}
	}
	return nil
}

// How a rank's message begins.
const (
	fine    byte = iota // results follow
	stopped             // the rank is to stop
	failed              // an error follows
)

// outcome returns the error of a round: that of this rank, of the first that failed, or
// that of ctx, which it cancels, if one is to stop. It leaves the results in all.
func (s *sharing) outcome(ctx context.Context, all [][]byte, own error) error {
	stops := false
	for rank, message := range all {
		switch {
		case len(message) == 0:
			return fmt.Errorf("train: rank %d sent nothing where results were expected", rank)
		case message[0] == failed && rank == s.world.Rank():
			return own
		case message[0] == failed:
			return fmt.Errorf("train: rank %d failed: %s", rank, message[1:])
		}
		stops = stops || message[0] == stopped
		all[rank] = message[1:]
	}
	if stops {
		s.end()
		return context.Canceled
	}
	return nil
}

var errOtherResults = errors.New("want as many numbers as it computed, got fewer bytes; start all ranks alike")

// next returns the first result of a message, and the rest.
func next[T Number](message []byte) (result []T, rest []byte, err error) {
	n, used := binary.Uvarint(message)
	var one T
	if used <= 0 || n > uint64(len(message)-used)/uint64(binary.Size(one)) {
		return nil, nil, errOtherResults
	}
	message = message[used:]
	result = make([]T, n)
	used, err = binary.Decode(message, binary.LittleEndian, result)
	return result, message[used:], err
}
