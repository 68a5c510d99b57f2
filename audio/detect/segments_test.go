package detect

import (
	"encoding/json"
	"os"
	"slices"
	"testing"
)

// TestSegmentsOfSilero compares with the segments that silero-vad's own function makes
// of random probabilities and options (internal/golden/gen/detect.py).
func TestSegmentsOfSilero(t *testing.T) {
	raw, err := os.ReadFile("testdata/segments.json")
	if err != nil {
		t.Fatal(err)
	}
	var cases []struct {
		Rate    int
		Length  int64
		Runs    [][2]int // windows, probability·1024
		Options struct {
			Threshold       *float64
			Neg             float64  `json:"neg_threshold"`
			MinSpeech       *float64 `json:"min_speech_duration_ms"`
			MinSilence      *float64 `json:"min_silence_duration_ms"`
			Pad             *float64 `json:"speech_pad_ms"`
			MaxSpeech       float64  `json:"max_speech_duration_s"`
			MinSilenceAtMax *float64 `json:"min_silence_at_max_speech"`
			Longest         *bool    `json:"use_max_poss_sil_at_max_speech"`
		}
		Speech [][2]int64
	}
	if err := json.Unmarshal(raw, &cases); err != nil {
		t.Fatal(err)
	}
	speech, cuts := 0, 0
	for i, c := range cases {
		o := DefaultSpeech()
		for to, from := range map[*float64]*float64{
			&o.Threshold: c.Options.Threshold, &o.MinSpeech: c.Options.MinSpeech, &o.MinSilence: c.Options.MinSilence,
			&o.Pad: c.Options.Pad, &o.MinSilenceAtMax: c.Options.MinSilenceAtMax,
		} {
			if from != nil {
				*to = *from
			}
		}
		o.NegThreshold, o.MaxSpeech = c.Options.Neg, c.Options.MaxSpeech
		if last := c.Options.Longest; last != nil && !*last {
			o.MaxSpeechCut = cutLast
			cuts += len(c.Speech)
		}
		g := newSegmenter(c.Rate, windowOf(c.Rate), &o)
		var got []span
		seen := int64(0)
		for _, run := range c.Runs {
			for range run[0] {
				if seen += g.window; seen >= c.Length {
					g.length = c.Length // the last window
				}
				g.add(float32(run[1]) / 1024)
				for _, s := range g.done { // what is final does not wait for the end
					if s.end > seen {
						t.Errorf("case %d: segment %v ends after sample %d, which was the last", i, s, seen)
					}
				}
				got, g.done = append(got, g.done...), nil
			}
		}
		g.length = c.Length
		g.finish()
		got = append(got, g.done...)
		want := make([]span, len(c.Speech))
		for k, s := range c.Speech {
			want[k] = span{s[0], s[1]}
		}
		if !slices.Equal(got, want) {
			t.Errorf("case %d, %+v:\n got %v\nwant %v", i, o, got, want)
		}
		speech += len(want)
	}
	if speech < 500 || cuts < 100 {
		t.Errorf("only %d segments, %d of cases with the last silence", speech, cuts)
	}
}
