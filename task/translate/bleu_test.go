package translate

import (
	"encoding/json"
	"math"
	"os"
	"slices"
	"strings"
	"testing"
)

// TestLikeSacreBLEU compares both metrics, and the cutting of words, with what
// sacreBLEU gave.
func TestLikeSacreBLEU(t *testing.T) {
	raw, err := os.ReadFile("testdata/bleu.json")
	if err != nil {
		t.Fatal(err)
	}
	var golden struct {
		Cases []struct {
			Name            string
			Lower           bool
			Translations    []string
			References      [][]string
			BLEU            float64
			Matches, Totals []int
			Precisions      []float64
			Brevity         float64
			Length          int
			ReferenceLength int `json:"reference_length"`
			Text            string
			CHRF            float64
			CHRFPP          float64 `json:"chrf_plus_plus"`
			Tokenizer       string
		}
		Tokens []struct {
			Text   string
			Tokens map[string]map[string][]string // by tokenizer, and by mixed or lower case
		}
	}
	if err := json.Unmarshal(raw, &golden); err != nil {
		t.Fatal(err)
	}
	if len(golden.Cases) == 0 || len(golden.Tokens) == 0 {
		t.Fatal("the golden file is empty")
	}
	near := func(a, b float64) bool { return math.Abs(a-b) <= 1e-9*math.Max(1, math.Abs(b)) }
	for _, c := range golden.Cases {
		s := bleu(c.Translations, c.References, c.Tokenizer, c.Lower)
		same := near(s.Score, c.BLEU) && near(s.BrevityPenalty, c.Brevity) && s.Length == c.Length && s.ReferenceLength == c.ReferenceLength &&
			slices.Equal(s.Matches[:], c.Matches) && slices.Equal(s.Totals[:], c.Totals) && slices.EqualFunc(s.Precisions[:], c.Precisions, near)
		if !same || s.String() != c.Text {
			t.Errorf("%s, %s, lower %v: %+v, sacreBLEU has %+v", c.Name, c.Tokenizer, c.Lower, s, c)
		}
		for wordOrder, want := range map[int]float64{0: c.CHRF, 2: c.CHRFPP} {
			if got := chrf(c.Translations, c.References, wordOrder, c.Lower); !near(got, want) {
				t.Errorf("%s, lower %v: chrF with word order %d %v, sacreBLEU has %v", c.Name, c.Lower, wordOrder, got, want)
			}
		}
	}
	for _, c := range golden.Tokens {
		for name, cut := range bleuTokenizers {
			for letters, want := range c.Tokens[name] {
				if got := words(cut(preparer(letters == "lower")(c.Text))); !slices.Equal(got, want) {
					t.Errorf("%q, %s, %s: words %q, sacreBLEU has %q", c.Text, name, letters, got, want)
				}
			}
		}
	}
}

func TestBLEUTokenizer(t *testing.T) {
	for _, c := range []struct{ texts, want string }{
		{"", "13a"}, {"1, 2.", "13a"}, {"The cat sat.", "13a"}, {"Кошка сидела.", "13a"}, {"고양이가 앉았다.", "13a"}, {"البيت كبير", "13a"},
		{"猫坐在垫子上。", "zh"}, {"我在 Kubernetes 中使用 Docker Compose 部署应用程序", "zh"}, {"He lives in Beijing (北京) with 王.", "13a"},
		{"猫はマットの上に座った。", "char"}, {"東京都庁は新宿区にある", "char"}, {"แมวนั่งบนเสื่อ", "char"}, {"ແມວນັ່ງ", "char"}, {"ឆ្មាអង្គុយ", "char"}, {"ကြောင်ထိုင်", "char"},
	} {
		if got := BLEUTokenizer(slices.Values([]string{c.texts})); got != c.want {
			t.Errorf("%q: %s, want %s", c.texts, got, c.want)
		}
	}
}

func TestUnequalLengths(t *testing.T) {
	if _, err := BLEU([]string{"a", "b"}, [][]string{{"a"}}, "13a", false); err == nil || !strings.Contains(err.Error(), "2 translations need 2 lists of references, got 1") {
		t.Errorf("BLEU: %v", err)
	}
	if _, err := CHRF(nil, [][]string{{"a"}}, 0, false); err == nil {
		t.Error("CHRF: no error")
	}
	if _, err := BLEU([]string{"a"}, [][]string{{"a"}}, "ja-mecab", false); err == nil || !strings.Contains(err.Error(), `want the tokenizer 13a, intl, zh, char or none, got "ja-mecab"`) {
		t.Errorf("BLEU: %v", err)
	}
	if _, err := CHRF([]string{"a"}, [][]string{{"a"}}, 3, false); err == nil {
		t.Error("CHRF: no error for a word order of 3")
	}
	if s, err := BLEU([]string{"猫坐在垫子"}, [][]string{{"猫坐在垫子"}}, "", false); err != nil || s.Score < 99.99 || s.Length != 5 {
		t.Errorf("BLEU with the tokenizer chosen: %v, %v", s, err)
	}
}
