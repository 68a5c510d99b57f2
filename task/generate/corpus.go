package generate

import (
	"context"
	"math/rand/v2"
	"slices"

	"github.com/carousel-ml/carousel/data"
	"github.com/carousel-ml/carousel/task"
	"github.com/carousel-ml/carousel/text"
	"github.com/carousel-ml/carousel/train"
)

// manyDocuments is the number of documents from which on whole documents are held
// out; with fewer, the end of each is.
const manyDocuments = 100

// leastDivided is the length in characters from which on a document is divided.
const leastDivided = 1000

// divide divides documents into parts as NewData describes.
func (c *Config) divide(ctx context.Context, docs []data.Document) (parts task.Parts[data.Document], err error) {
	p, err := c.parts()
	if err != nil {
		return parts, err
	}
	if c.Split == "" {
		p = [3]float64{0.9, 0.1, 0}
	}
	parts.Whole = docs
	if len(docs) >= manyDocuments {
		draw(&parts, docs, p, c.Seed)
		return parts, nil
	}
	for _, d := range docs {
		n, _, err := measure(ctx, []data.Document{d}, text.Unknown)
		if err != nil {
			return parts, err
		}
		if n < leastDivided {
			parts.Training = append(parts.Training, d)
			continue
		}
		// As Python's int(n*0.9), which published splits use.
		first, second := int(float64(n)*p[0]), int(float64(n)*(p[0]+p[1])+1e-9)
		if p[2] == 0 {
			second = n
		}
		if p[1] == 0 {
			second = first
		}
		r := &reading{ctx: ctx}
		a, b := r.runes(d, first, second)
		if r.err != nil {
			return parts, r.err
		}
		for _, part := range []struct {
			to       *[]data.Document
			from, up int64
		}{{&parts.Training, 0, a}, {&parts.Validation, a, b}, {&parts.Test, b, d.Size()}} {
			if part.from < part.up {
				*part.to = append(*part.to, d.Slice(part.from, part.up))
			}
		}
	}
	return parts, nil
}

// draw assigns whole documents to the parts at random, and keeps their order.
func draw(parts *task.Parts[data.Document], docs []data.Document, p [3]float64, seed uint64) {
	total, size := int64(0), int64(0)
	for _, d := range docs {
		total += d.Size()
	}
	part := make([]*[]data.Document, len(docs))
	for _, i := range rand.New(rand.NewPCG(seed, 0x73706c6974)).Perm(len(docs)) {
		part[i] = &parts.Training
		switch {
		case float64(size) < p[2]*float64(total):
			part[i] = &parts.Test
		case float64(size) < (p[1]+p[2])*float64(total):
			part[i] = &parts.Validation
		}
		size += docs[i].Size()
	}
	for i, d := range docs {
		*part[i] = append(*part[i], d)
	}
}

// piece is a part of a document that one stream reads without interruption: steps
// from to to.
type piece struct{ doc, from, to int }

func (p piece) steps() int { return p.to - p.from }

// streams arranges a corpus in rows that are read in parallel, segment by
// segment, with the state carried. A row is a list of pieces; each begins with a
// state of zeros.
type streams struct {
	corpus  *corpus
	steps   int // of a segment, at most
	seed    uint64
	rows    [][]piece
	batches int

	epoch  int // of order
	order  [][]placed
	rare   *rare   // in training: the tokens that may be read as unseen ones
	readAs []int32 // by id: the token that it is read as in the epoch; nil: itself
	tokens []int32 // of a segment
	raw    []byte  // as they are stored
}

// placed is a piece and the number of its first segment in the row.
type placed struct {
	piece
	first int
}

// newStreams divides a corpus into rows of similar length. Documents longer than
// a row are cut, unless whole is set. Pieces are added, longest first, to the
// shortest row, so a single document becomes contiguous parts, one per row.
func newStreams(c *corpus, rows, steps int, whole bool, seed uint64) *streams {
	s := &streams{corpus: c, steps: steps, seed: seed, rows: make([][]piece, rows), epoch: -1}
	total := 0
	for _, d := range c.docs {
		total += d.steps()
	}
	longest := (total + rows - 1) / rows
	var all []piece
	for i, d := range c.docs {
		n, parts := d.steps(), 1
		if !whole {
			parts = (n + longest - 1) / longest
		}
		for k := range parts {
			all = append(all, piece{i, k * n / parts, (k + 1) * n / parts})
		}
	}
	slices.SortStableFunc(all, func(a, b piece) int { return b.steps() - a.steps() })
	filled := make([]int, rows)
	for _, p := range all {
		r := 0
		for i := range filled {
			if filled[i] < filled[r] {
				r = i
			}
		}
		s.rows[r] = append(s.rows[r], p)
		filled[r] += s.segments(p)
	}
	s.batches = slices.Max(filled)
	return s
}

// segments returns the number of segments of a piece.
func (s *streams) segments(p piece) int { return (p.steps() + s.steps - 1) / s.steps }

// arrange shuffles each row's pieces for an epoch.
func (s *streams) arrange(epoch int) {
	if s.epoch == epoch {
		return
	}
	s.epoch, s.order = epoch, make([][]placed, len(s.rows))
	s.readAs = s.rare.draw(s.readAs, s.seed, epoch)
	r := rand.New(rand.NewPCG(s.seed^0x73747265616d, uint64(epoch)))
	for i, row := range s.rows {
		at := 0
		for _, k := range r.Perm(len(row)) {
			s.order[i] = append(s.order[i], placed{row[k], at})
			at += s.segments(row[k])
		}
	}
}

// batch is a segment of some rows.
type batch struct {
	ids     []int32 // [B,T], inputs
	targets []int32 // [B,T], next tokens; -100 for none
	lengths []int32 // [B]
	begins  []bool  // [B], whether the row begins a piece
	parts   []piece // [B], sources of the segments
	B, T    int     // T is at least 1, also where all rows have ended
	tokens  int     // number of targets
	ragged  bool    // rows differ in length
	slot    int     // in training: the number of the batch in its step
}

const ignored = -100

// load fills b with segment n of the rows from lo to hi, in an epoch. The error is that of
// reading the tokens.
func (s *streams) load(b *batch, epoch, n, lo, hi int) error {
	s.arrange(epoch)
	b.B, b.T, b.tokens = hi-lo, 1, 0
	b.lengths, b.begins, b.parts = train.Resize(b.lengths, b.B), train.Resize(b.begins, b.B), train.Resize(b.parts, b.B)
	for i, row := range s.order[lo:hi] {
		b.parts[i], b.begins[i] = s.segment(row, n)
		steps := b.parts[i].steps()
		b.lengths[i] = int32(steps)
		b.T = max(b.T, steps)
		b.tokens += steps
	}
	b.ids, b.targets = train.Resize(b.ids, b.B*b.T), train.Resize(b.targets, b.B*b.T)
	b.ragged = b.tokens < b.B*b.T
	for i, p := range b.parts {
		ids, targets := b.ids[i*b.T:(i+1)*b.T], b.targets[i*b.T:(i+1)*b.T]
		k := p.steps()
		if k > 0 {
			s.tokens = train.Resize(s.tokens, k+1)
			if err := s.corpus.read(s.tokens, s.corpus.docs[p.doc].from+p.from, &s.raw); err != nil {
				return err
			}
			if s.readAs != nil {
				for j, id := range s.tokens {
					s.tokens[j] = s.readAs[id]
				}
			}
			copy(ids, s.tokens)
			copy(targets, s.tokens[1:])
		}
		for ; k < b.T; k++ {
			ids[k], targets[k] = 0, ignored
		}
	}
	return nil
}

// segment returns the part of a row's piece in its segment n, and whether it is
// the piece's first; an empty one after the row's end.
func (s *streams) segment(row []placed, n int) (p piece, begins bool) {
	i, exact := slices.BinarySearchFunc(row, n, func(p placed, n int) int { return p.first - n })
	if !exact {
		i--
	}
	if i < 0 {
		return piece{}, true
	}
	p = row[i].piece
	p.from += (n - row[i].first) * s.steps
	if p.from >= p.to {
		return piece{}, true
	}
	p.to = min(p.to, p.from+s.steps)
	return p, n == row[i].first
}
