package classify

import (
	"context"
	"math"
	"math/rand/v2"
	"slices"

	"github.com/carousel-ml/carousel/model"
	"github.com/carousel-ml/carousel/report"
)

// linear is the baseline of every classifier: logistic regression on the presence
// of words and pairs of words, each scaled by its log-count ratio between the
// classes (Wang and Manning 2012, NB-SVM, with the logistic loss and, for more
// than two classes, one ratio per class).
type linear struct {
	classes  int
	several  bool
	features map[uint64]int32 // n-gram to row
	weights  []float32        // [features,classes]
	bias     []float32        // [classes]
	penalty  float64
}

// maxOrder is the longest n-gram in tokens. The key of an n-gram has 21 bits per
// token.
const maxOrder = 2

const tokenBits = 21

// ngrams calls f with the key of each distinct n-gram of a text.
func ngrams(ids []int32, seen map[uint64]struct{}, f func(key uint64)) {
	clear(seen)
	for i := range ids {
		key := uint64(0)
		for n := 0; n < maxOrder && i+n < len(ids); n++ {
			key = key<<tokenBits | uint64(ids[i+n]+1)&(1<<tokenBits-1)
			if _, twice := seen[key]; !twice {
				seen[key] = struct{}{}
				f(key)
			}
		}
	}
}

// document is a text as rows of the table of features.
type document []int32

// penalties are the weights of the quadratic penalty that validation chooses
// from.
var penalties = []float64{1e-4, 1e-3, 1e-2}

// fitLinear learns from the training texts. The penalty is the one with the least
// loss on the validation texts, or the middle one if there are none. A cancelled ctx
// returns its error.
func fitLinear(ctx context.Context, training, validation *corpus, classes int, several bool, seed uint64) (*linear, error) {
	l := &linear{classes: classes, several: several}
	docs := l.index(ctx, training)
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	ratios := l.ratios(docs, training.labels)
	if !hasLabels(validation) {
		return l, l.train(ctx, docs, training.labels, ratios, penalties[1], seed)
	}
	least := math.Inf(1)
	var best linear
	for _, p := range penalties {
		if err := l.train(ctx, docs, training.labels, ratios, p, seed); err != nil {
			return nil, err
		}
		if loss := meanLoss(l.logProbabilities(validation), validation.labels, several); loss < least || best.weights == nil {
			least, best = loss, *l
		}
	}
	return &best, nil
}

// index numbers the n-grams of the training texts: all single tokens, and longer
// n-grams that occur in two texts. It returns the texts as lists of these
// numbers. It ends early when ctx does.
func (l *linear) index(ctx context.Context, c *corpus) []document {
	counts := map[uint64]int32{}
	seen := map[uint64]struct{}{}
	for i := range c.len() {
		if ctx.Err() != nil {
			return nil
		}
		ngrams(c.text(i), seen, func(key uint64) { counts[key]++ })
	}
	l.features = map[uint64]int32{}
	docs := make([]document, c.len())
	for i := range docs {
		if ctx.Err() != nil {
			return nil
		}
		ngrams(c.text(i), seen, func(key uint64) {
			if counts[key] < 2 && key>>tokenBits != 0 {
				return
			}
			row, ok := l.features[key]
			if !ok {
				row = int32(len(l.features))
				l.features[key] = row
			}
			docs[i] = append(docs[i], row)
		})
	}
	return docs
}

// ratios returns the log-count ratios of naive Bayes [features,classes].
func (l *linear) ratios(docs []document, labels [][]int32) []float32 {
	const smoothing = 1
	in, out := make([]float64, len(l.features)*l.classes), make([]float64, len(l.features)*l.classes)
	inSum, outSum := make([]float64, l.classes), make([]float64, l.classes)
	for i, d := range docs {
		for k := range l.classes {
			to, sum := out, outSum
			if slices.Contains(labels[i], int32(k)) {
				to, sum = in, inSum
			}
			for _, row := range d {
				to[int(row)*l.classes+k]++
			}
			sum[k] += float64(len(d))
		}
	}
	r := make([]float32, len(in))
	n := float64(len(l.features)) * smoothing
	for at := range r {
		k := at % l.classes
		r[at] = orNothing(float32(math.Log((in[at] + smoothing) / (inSum[k] + n) * (outSum[k] + n) / (out[at] + smoothing))))
	}
	return r
}

// train fits the weights with AdaGrad over the texts in random order, and
// multiplies them by the ratios. A cancelled ctx returns its error.
func (l *linear) train(ctx context.Context, docs []document, labels [][]int32, ratios []float32, penalty float64, seed uint64) error {
	l.penalty = penalty
	weights, sums := make([]float32, len(ratios)), make([]float32, len(ratios))
	l.bias = make([]float32, l.classes)
	biasSums := make([]float32, l.classes)
	order := make([]int, len(docs))
	for i := range order {
		order[i] = i
	}
	const passes, rate = 15, 0.1
	r := rand.New(rand.NewPCG(seed, 0x6c696e656172))
	scores, p := make([]float32, l.classes), make([]float64, l.classes)
	decay := float32(penalty)
	for range passes {
		r.Shuffle(len(order), func(i, j int) { order[i], order[j] = order[j], order[i] })
		for n, i := range order {
			if n%1024 == 0 && ctx.Err() != nil {
				return ctx.Err()
			}
			if len(labels[i]) == 0 && !l.several {
				continue
			}
			copy(scores, l.bias)
			for _, row := range docs[i] {
				w, q := weights[int(row)*l.classes:][:l.classes], ratios[int(row)*l.classes:][:l.classes]
				for k := range scores {
					scores[k] += w[k] * q[k]
				}
			}
			l.logs(p, scores)
			for k := range p {
				g := orNothing(float32(exp(p[k])))
				if slices.Contains(labels[i], int32(k)) {
					g--
				}
				scores[k] = g
				if g != 0 {
					biasSums[k] += g * g
					l.bias[k] -= rate * g / float32(math.Sqrt(float64(biasSums[k])))
				}
			}
			for _, row := range docs[i] {
				at := int(row) * l.classes
				for k, s := range scores {
					if g := orNothing(s*ratios[at+k] + decay*weights[at+k]); g != 0 {
						sums[at+k] += g * g
						weights[at+k] = orNothing(weights[at+k] - rate*g/float32(math.Sqrt(float64(sums[at+k]))))
					}
				}
			}
		}
	}
	for at := range weights {
		weights[at] *= ratios[at]
	}
	l.weights = weights
	return nil
}

// orNothing returns x, or zero if |x| is below 2^-60, so that the product of two
// such numbers is never subnormal, which is slow. Gradients of texts that are
// predicted with certainty and weights that only the penalty acts on shrink
// towards zero. The comparison uses the bits, since branches on the sign are hard
// to predict.
func orNothing(x float32) float32 {
	const least = 127 - 60 // the exponent of 2^-60
	if math.Float32bits(x)<<1 < least<<24 {
		return 0
	}
	return x
}

// exp returns e^x, or zero below e^-85: there math.Exp is slow and returns
// subnormal numbers.
func exp(x float64) float64 {
	if x < -85 {
		return 0
	}
	return math.Exp(x)
}

// logs writes the log-probabilities of scores to p: a softmax, or the logistic
// function of each if texts may have several labels.
func (l *linear) logs(p []float64, scores []float32) { logProbabilities(p, scores, l.several) }

func logProbabilities(p []float64, scores []float32, several bool) {
	if several {
		for k, s := range scores {
			p[k] = -math.Log1p(exp(-float64(s)))
			if s < -30 {
				p[k] = float64(s)
			}
		}
		return
	}
	most := float64(slices.Max(scores))
	sum := 0.0
	for _, s := range scores {
		sum += exp(float64(s) - most)
	}
	for k, s := range scores {
		p[k] = float64(s) - most - math.Log(sum)
	}
}

// logProbabilities returns the log-probabilities of the texts [texts][classes].
func (l *linear) logProbabilities(c *corpus) [][]float64 {
	out := make([][]float64, c.len())
	scores := make([]float32, l.classes)
	seen := map[uint64]struct{}{}
	for i := range out {
		copy(scores, l.bias)
		ngrams(c.text(i), seen, func(key uint64) {
			if row, ok := l.features[key]; ok {
				for k, w := range l.weights[int(row)*l.classes:][:l.classes] {
					scores[k] += w
				}
			}
		})
		out[i] = make([]float64, l.classes)
		l.logs(out[i], scores)
	}
	return out
}

// shares divides the score of a class, above the mean of the classes unless a text
// may have several, among the tokens of a text: an n-gram's equally among its tokens
// and its occurrences.
func (l *linear) shares(ids []int32, class int) []float64 {
	out := make([]float64, len(ids))
	at := map[uint64][]int{} // where each n-gram begins
	order := map[uint64]int{}
	var keys []uint64
	for i := range ids {
		key := uint64(0)
		for n := 0; n < maxOrder && i+n < len(ids); n++ {
			key = key<<tokenBits | uint64(ids[i+n]+1)&(1<<tokenBits-1)
			if at[key] == nil {
				keys = append(keys, key)
			}
			at[key], order[key] = append(at[key], i), n+1
		}
	}
	for _, key := range keys {
		row, ok := l.features[key]
		if !ok {
			continue
		}
		weights := l.weights[int(row)*l.classes:][:l.classes]
		w := float64(weights[class])
		for _, other := range weights {
			if !l.several {
				w -= float64(other) / float64(l.classes)
			}
		}
		n := order[key]
		for _, begin := range at[key] {
			for j := range n {
				out[begin+j] += w / float64(n*len(at[key]))
			}
		}
	}
	return out
}

// tensors returns the weights as tensors for saving.
func (l *linear) tensors() []model.Tensor {
	keys := make([]int64, len(l.features))
	for key, row := range l.features {
		keys[row] = int64(key)
	}
	return []model.Tensor{
		{Name: "features", Dims: []int{len(keys)}, Ints: keys},
		{Name: "weights", Dims: []int{len(keys), l.classes}, Data: l.weights},
		{Name: "bias", Dims: []int{l.classes}, Data: l.bias},
	}
}

// openLinear is the inverse of tensors. A file that is missing or does not fit is
// a *model.FileError.
func openLinear(d *model.Dir, classes int, several bool) (*linear, error) {
	f, err := d.ReadTensors(linearFile)
	if err != nil {
		return nil, err
	}
	l := &linear{classes: classes, several: several, features: map[uint64]int32{}}
	keys, weights, bias := f.Lookup("features"), f.Lookup("weights"), f.Lookup("bias")
	if keys == nil || weights == nil || bias == nil || len(bias.Data) != classes || len(weights.Data) != len(keys.Ints)*classes {
		return nil, &model.FileError{File: f.Path, Problem: "expected features, weights and bias of " + report.Agree(classes, "class", "classes"), Fix: "train the model again"}
	}
	for row, key := range keys.Ints {
		l.features[uint64(key)] = int32(row)
	}
	l.weights, l.bias = weights.Data, bias.Data
	return l, nil
}

// meanLoss returns the mean negative log-likelihood of the labels over the texts
// that have one; NaN if there are none.
func meanLoss(logs [][]float64, labels [][]int32, several bool) float64 {
	sum, n := 0.0, 0
	for i, p := range logs {
		switch {
		case several:
			for k, v := range p {
				if slices.Contains(labels[i], int32(k)) {
					sum -= v
				} else {
					sum -= math.Log1p(-min(math.Exp(v), 1-1e-12))
				}
			}
			n++
		case len(labels[i]) > 0:
			sum -= p[labels[i][0]]
			n++
		}
	}
	if n == 0 {
		return math.NaN()
	}
	return sum / float64(n)
}

// mix returns log((1-share)·e^p + share·e^q).
func mix(p, q []float64, share float64) []float64 {
	out := make([]float64, len(p))
	for k := range p {
		out[k] = math.Log((1-share)*math.Exp(p[k]) + share*math.Exp(q[k]))
	}
	return out
}
