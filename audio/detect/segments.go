package detect

import "math"

// span is a part of a sound, from one sample to before another.
type span struct{ start, end int64 }

// segmenter turns the probabilities of speech of one window after the other into
// segments, by the rules of silero-vad's get_speech_timestamps. All positions are
// samples at the model's rate.
type segmenter struct {
	window              int64
	threshold, negative float64
	minSpeech           float64
	minSilence          float64
	pad                 float64
	maxSpeech           float64
	minSilenceAtMax     float64
	cutAtLast           bool

	at       int64 // begin of the next window
	length   int64 // of the sound, math.MaxInt64 until it is known
	speaking bool
	start    int64 // of the current speech
	quiet    int64 // begin of the current silence in it; 0: none
	cut      span  // silence at which it is cut if it becomes too long; its start is 0: none
	held     *span // an accepted segment whose end depends on the next one
	done     []span
}

func newSegmenter(rate, window int, o *SpeechOptions) *segmenter {
	samples := func(ms float64) float64 { return float64(rate) * ms / 1000 }
	g := &segmenter{
		window: int64(window), threshold: o.Threshold, negative: o.NegThreshold,
		minSpeech: samples(o.MinSpeech), minSilence: samples(o.MinSilence), pad: samples(o.Pad),
		maxSpeech: math.Inf(1), minSilenceAtMax: samples(o.MinSilenceAtMax), cutAtLast: o.MaxSpeechCut == cutLast,
		length: math.MaxInt64,
	}
	if g.negative == 0 {
		g.negative = math.Max(g.threshold-0.15, 0.01)
	}
	if o.MaxSpeech > 0 {
		g.maxSpeech = float64(rate)*o.MaxSpeech - float64(window) - 2*g.pad
	}
	return g
}

// add takes the probability of the next window.
func (g *segmenter) add(p float32) {
	at := g.at
	g.at += g.window
	g.step(at, float64(p))
	// The next segment begins where the current speech does, or with a later window.
	next := g.at
	if g.speaking {
		next = g.start
	}
	if g.held != nil && float64(next-g.held.end) >= 2*g.pad {
		g.release(g.pad)
	}
}

func (g *segmenter) step(at int64, p float64) {
	loud := p >= g.threshold
	if loud && g.quiet > 0 {
		g.resume(at)
	}
	if loud && !g.speaking {
		g.speaking, g.start = true, at
		return
	}
	if g.speaking && float64(at-g.start) > g.maxSpeech {
		switch cut := g.cut; {
		case cut.start == 0:
			g.accept(span{g.start, at})
			g.stop()
			return
		case cut.end == 0: // the silence lasts
			g.accept(span{g.start, cut.start})
			g.stop()
		default:
			g.accept(span{g.start, cut.start})
			g.stop()
			g.speaking, g.start = true, cut.end
		}
	}
	if !g.speaking || p >= g.negative {
		return
	}
	if g.quiet == 0 {
		g.quiet = at
	}
	silence := float64(at - g.quiet)
	if g.cutAtLast && silence > g.minSilenceAtMax {
		g.cut = span{start: g.quiet}
	}
	if silence >= g.minSilence {
		if float64(g.quiet-g.start) > g.minSpeech {
			g.accept(span{g.start, g.quiet})
		}
		g.stop()
	}
}

// resume ends a silence within speech.
func (g *segmenter) resume(at int64) {
	silence := span{g.quiet, at}
	g.quiet = 0
	switch length := silence.end - silence.start; {
	case g.cutAtLast:
		if g.cut.start > 0 && g.cut.end < g.cut.start {
			g.cut.end = at
		}
	case float64(length) > g.minSilenceAtMax && length > g.cut.end-g.cut.start:
		g.cut = silence
	}
}

func (g *segmenter) stop() { g.speaking, g.quiet, g.cut = false, 0, span{} }

// accept adds a segment; padding shares a short silence with the one before.
func (g *segmenter) accept(s span) {
	before := g.pad
	if g.held != nil {
		silence := s.start - g.held.end
		if float64(silence) < 2*g.pad {
			before = float64(silence / 2)
		}
		g.release(before)
	}
	s.start = int64(max(0, float64(s.start)-before))
	g.held = &s
}

// release pads the end of the held segment, which is final then.
func (g *segmenter) release(pad float64) {
	s := *g.held
	s.end = int64(min(float64(g.length), float64(s.end)+pad))
	g.done, g.held = append(g.done, s), nil
}

// finish ends the sound; length was set before its last window.
func (g *segmenter) finish() {
	if g.speaking && float64(g.length-g.start) > g.minSpeech {
		g.accept(span{g.start, g.length})
	}
	g.stop()
	if g.held != nil {
		g.release(g.pad)
	}
}
