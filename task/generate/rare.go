package generate

import "math/rand/v2"

// rare is how the tokens that training never sees get their probability: in each
// epoch a share of the tokens that occur once is read as one of those. Without
// this they would only ever be pushed down, and an unknown character would cost
// some twenty nats wherever it comes.
type rare struct {
	once   []int32 // the tokens that occur once in the training text
	unseen []int32 // the tokens that a text may hold and the training text does not
	share  float64 // of once that is read as unseen
	size   int     // of the vocabulary
}

// newRare returns the rare tokens by their counts, nil if there are none, or if the
// text itself shows what is unknown: then the unknown token has a count.
//
// By Good and Turing's estimate, of the next tokens as many are new as occur once
// (n1), and those seen once come again as often as twice the number of those seen
// twice (n2). Both have to share the n1 occurrences in the text, so n1/(n1+2·n2) of
// them are read as unseen.
func newRare(k *codec, counts []int64) *rare {
	r := &rare{size: len(counts)}
	unknown := k.tokens.Vocabulary().UnknownID()
	if unknown >= 0 && counts[unknown] > 0 {
		return nil
	}
	twice := 0
	for i, n := range counts {
		id := int32(i)
		switch {
		case n == 0 && id == unknown, n == 0 && k.said(id):
			r.unseen = append(r.unseen, id)
		case n == 1 && k.said(id):
			r.once = append(r.once, id)
		case n == 2 && k.said(id):
			twice++
		}
	}
	if len(r.once) == 0 || len(r.unseen) == 0 {
		return nil
	}
	r.share = float64(len(r.once)) / float64(len(r.once)+2*max(twice, 1))
	return r
}

// draw returns the token that each token is read as in an epoch, in to if it is
// large enough; nil if each is read as itself.
func (r *rare) draw(to []int32, seed uint64, epoch int) []int32 {
	if r == nil {
		return nil
	}
	if to == nil {
		to = make([]int32, r.size)
	}
	for i := range to {
		to[i] = int32(i)
	}
	random := rand.New(rand.NewPCG(seed^0x72617265, uint64(epoch)))
	for _, id := range r.once {
		if random.Float64() < r.share {
			to[id] = r.unseen[random.IntN(len(r.unseen))]
		}
	}
	return to
}

// expected returns how often each token is read in an epoch, on average: as the
// counts say, but for the rare and the unseen.
func (r *rare) expected(counts []int64) []float64 {
	list := make([]float64, len(counts))
	for i, n := range counts {
		list[i] = float64(n)
	}
	if r != nil {
		for _, id := range r.once {
			list[id] = 1 - r.share
		}
		for _, id := range r.unseen {
			list[id] = r.share * float64(len(r.once)) / float64(len(r.unseen))
		}
	}
	return list
}
