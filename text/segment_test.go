package text

import (
	"bytes"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"math"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/carousel-ml/carousel/data"
	"github.com/carousel-ml/carousel/internal/golden"
	"github.com/carousel-ml/carousel/model"
)

var dumpThai = flag.String("dump-thai", "", "write the Thai texts of the tests to this file, a line each")

const thaiWords = `ฉัน ผม คุณ เขา เธอ เรา พวกเขา มัน นี่ นั่น ที่ ซึ่ง และ หรือ แต่ เพราะ ถ้า เมื่อ แล้ว จะ กำลัง ได้ ไม่ ต้อง อยาก ควร
ไป มา กิน ดื่ม นอน ตื่น ทำงาน เรียน อ่าน เขียน พูด ฟัง ดู เห็น รู้ คิด รัก ชอบ ซื้อ ขาย ให้ รับ เดิน วิ่ง นั่ง ยืน เล่น ช่วย รอ เปิด ปิด เริ่ม จบ
บ้าน โรงเรียน มหาวิทยาลัย โรงพยาบาล ตลาด ร้านอาหาร ธนาคาร สนามบิน สถานี รถไฟ รถยนต์ เครื่องบิน เรือ จักรยาน ถนน เมือง ประเทศ หมู่บ้าน ภูเขา ทะเล แม่น้ำ เกาะ ป่า ต้นไม้ ดอกไม้ สัตว์ หมา แมว นก ปลา ช้าง ม้า
ข้าว น้ำ ผลไม้ มะม่วง กล้วย ส้ม ไก่ หมู เนื้อ ไข่ ผัก กาแฟ ชา นม ขนม น้ำตาล เกลือ พริก ก๋วยเตี๋ยว ข้าวผัด
แม่ พ่อ พี่ น้อง ลูก เพื่อน ครู นักเรียน หมอ ตำรวจ ทหาร รัฐบาล นายกรัฐมนตรี ประชาชน คน เด็ก ผู้หญิง ผู้ชาย
วันนี้ พรุ่งนี้ เมื่อวาน เช้า เย็น กลางคืน วัน เดือน ปี ชั่วโมง นาที เวลา จันทร์ อังคาร พุธ มกราคม ธันวาคม หนึ่ง สอง สาม สิบ ร้อย พัน หมื่น ล้าน
ใหญ่ เล็ก ดี เลว สวย ร้อน หนาว ใหม่ เก่า เร็ว ช้า ง่าย ยาก แพง ถูก สูง ต่ำ ยาว สั้น มาก น้อย ทุก บาง หลาย อื่น
ภาษาไทย ภาษาอังกฤษ ประวัติศาสตร์ วิทยาศาสตร์ คณิตศาสตร์ เศรษฐกิจ การเมือง วัฒนธรรม ศาสนา ดนตรี กีฬา ฟุตบอล คอมพิวเตอร์ โทรศัพท์ อินเทอร์เน็ต โปรแกรม ข้อมูล ข่าว หนังสือ ปัญหา คำตอบ ความสุข ความรัก ความจริง การศึกษา การเดินทาง กรุงเทพมหานคร เชียงใหม่ ญี่ปุ่น จีน อเมริกา`

// thaiTexts are a thousand sentences of Thai words, and three hundred of any characters of
// the script, marks in impossible places among them.
func thaiTexts() (list []string) {
	words := strings.Fields(thaiWords)
	r := rand.New(rand.NewPCG(5, 6))
	for range 1000 {
		var s strings.Builder
		for range 2 + r.IntN(20) {
			s.WriteString(words[r.IntN(len(words))])
		}
		list = append(list, s.String())
	}
	for range 300 {
		var s strings.Builder
		for n := 1 + r.IntN(30); n > 0; {
			if c := rune(0x0e01 + r.IntN(0x4e)); c != 0x0e3f && (c < 0x0e3b || c > 0x0e3f) {
				s.WriteRune(c)
				n--
			}
		}
		list = append(list, s.String())
	}
	return list
}

func thai(t testing.TB) *Segmenter {
	s, err := OpenSegmenter(golden.Shared(t, "models/icu_thai_model4_weights.json"))
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// The words of ICU4X's segmenter, whose answers the file has.
func TestSegmenter(t *testing.T) {
	s, texts := thai(t), thaiTexts()
	if *dumpThai != "" {
		if err := os.WriteFile(*dumpThai, []byte(strings.Join(texts, "\n")+"\n"), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if s.Script() != "Thai" || s.Name() != "Thai_codepoints_exclusive_model4_heavy" {
		t.Errorf("%s for %s", s.Name(), s.Script())
	}
	lines, err := data.NewLineReader("icu4x_thai.txt", bytes.NewReader(golden.Gzip(t, "testdata/icu4x_thai.txt.gz")), "")
	if err != nil {
		t.Fatal(err)
	}
	words, other := 0, 0
	for _, text := range texts {
		line, err := lines.Next()
		if err != nil {
			t.Fatal(err)
		}
		var got []string
		from := 0
		for _, to := range s.Segment(nil, text) {
			got, from = append(got, text[from:to]), to
		}
		if want := strings.Split(line, " "); !slices.Equal(got, want) {
			if other++; other < 5 {
				t.Errorf("%s: words\n%q, want\n%q", text, got, want)
			}
		}
		words += len(got)
	}
	t.Logf("%d texts, %d words; %d texts differ", len(texts), words, other)
}

// small is a model of random weights for the units given, and its parts.
func small(units ...string) (file map[string]any, matrices map[string][]float64) {
	const width, hidden = 3, 2
	r := rand.New(rand.NewPCG(9, 9))
	dic := map[string]int{}
	for i, u := range units {
		dic[u] = i
	}
	file, matrices = map[string]any{"model": "small", "dic": dic}, map[string][]float64{}
	for i, dim := range [][]int{
		{len(units) + 1, width}, {width, 4 * hidden}, {hidden, 4 * hidden}, {4 * hidden},
		{width, 4 * hidden}, {hidden, 4 * hidden}, {4 * hidden}, {2 * hidden, 4}, {4},
	} {
		name := fmt.Sprintf("mat%d", i+1)
		n := 1
		for _, d := range dim {
			n *= d
		}
		for range n {
			matrices[name] = append(matrices[name], float64(float32(2*r.NormFloat64())))
		}
		file[name] = map[string]any{"v": 1, "dim": dim, "data": matrices[name]}
	}
	return file, matrices
}

func saved(t *testing.T, file map[string]any) string {
	t.Helper()
	content, err := json.Marshal(file)
	if err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(t.TempDir(), "weights.json")
	if err := os.WriteFile(path, content, 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

// A model of grapheme clusters computes the equations of its layers.
func TestSegmenterOfClusters(t *testing.T) {
	units := []string{"ที่", "น้ำ", "ก", "เ", "า", "สุ้"}
	file, m := small(units...)
	s, err := OpenSegmenter(saved(t, file))
	if err != nil {
		t.Fatal(err)
	}
	const width, hidden = 3, 2
	read := func(ids []int, w, u, b []float64) (h [][]float64) {
		state, c := make([]float64, hidden), make([]float64, hidden)
		sigma := func(x float64) float64 { return 1 / (1 + math.Exp(-x)) }
		for _, id := range ids {
			g := slices.Clone(b)
			for j := range g {
				for i := range width {
					g[j] += m["mat1"][id*width+i] * w[i*4*hidden+j]
				}
				for i, v := range state {
					g[j] += v * u[i*4*hidden+j]
				}
			}
			next := make([]float64, hidden)
			for j := range hidden {
				c[j] = sigma(g[hidden+j])*c[j] + sigma(g[j])*math.Tanh(g[2*hidden+j])
				next[j] = sigma(g[3*hidden+j]) * math.Tanh(c[j])
			}
			state = next
			h = append(h, next)
		}
		return h
	}
	r := rand.New(rand.NewPCG(1, 1))
	ended := 0
	for range 50 {
		var ids, ends []int
		text := ""
		for range 1 + r.IntN(20) {
			id := r.IntN(len(units) + 1)
			text += append(slices.Clone(units), "ค")[id] // the last is not known
			ids, ends = append(ids, id), append(ends, len(text))
		}
		forward := read(ids, m["mat2"], m["mat3"], m["mat4"])
		back := slices.Clone(ids)
		slices.Reverse(back)
		backward := read(back, m["mat5"], m["mat6"], m["mat7"])
		var want []int
		for i, end := range ends {
			scores := slices.Clone(m["mat9"])
			for k, v := range append(slices.Clone(forward[i]), backward[len(ids)-1-i]...) {
				for j := range scores {
					scores[j] += v * m["mat8"][k*4+j]
				}
			}
			if scores[2] == slices.Max(scores) || i == len(ids)-1 {
				want = append(want, end)
			}
		}
		ended += len(want)
		if got := s.Segment(nil, text); !slices.Equal(got, want) {
			t.Errorf("%s: words end at %v, want %v", text, got, want)
		}
	}
	if ended < 100 {
		t.Errorf("only %d words", ended)
	}
}

// A tokenizer of words has the segmenter in its file, and cuts nothing else otherwise.
func TestSegmentedWords(t *testing.T) {
	s := thai(t)
	const text = "วันนี้ไปตลาด, then 3.5 กม. ๑๒ 東京 it's ไทย-English"
	o := &TokenizerOptions{Segmenters: []*Segmenter{s}}
	made, err := TrainTokenizer(t.Context(), "word", slices.Values([]string{text}), o)
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	if err := made.Save(dir); err != nil {
		t.Fatal(err)
	}
	again, err := LoadTokenizer(dir)
	if err != nil {
		t.Fatal(err)
	}
	for _, tok := range []*Tokenizer{made, again} {
		var got []string
		for _, token := range tok.Tokens(nil, text) {
			got = append(got, text[token.Start:token.End])
		}
		want := strings.Split("วัน นี้ ไป ตลาด , then 3.5 กม . ๑ ๒ 東 京 it's ไทย - English", " ")
		if joined := strings.Join(got, " "); joined != strings.Join(want, " ") {
			t.Errorf("words %s", joined)
		}
		if got := tok.Decode(tok.Encode(nil, "วันนี้ไปตลาด then ไทย")); got != "วันนี้ไปตลาด then ไทย" {
			t.Errorf("decoded %q", got)
		}
	}
	for want, c := range map[string]struct {
		kind string
		list []*Segmenter
	}{
		`a segmenter finds words, and the kind of tokenizer is "bpe"; want word`: {"bpe", o.Segmenters},
		"two segmenters are for the script Thai, want one for each script":       {"word", []*Segmenter{s, s}},
	} {
		_, err := TrainTokenizer(t.Context(), c.kind, slices.Values([]string{text}), &TokenizerOptions{Segmenters: c.list})
		var input *data.InputError
		if !errors.As(err, &input) || !strings.Contains(err.Error(), want) {
			t.Errorf("got %v, want %q", err, want)
		}
	}
}

// A long run is divided, and a Segmenter serves several goroutines.
func TestSegmenterOfLongRuns(t *testing.T) {
	file, _ := small("ก", "ข")
	s, err := OpenSegmenter(saved(t, file))
	if err != nil {
		t.Fatal(err)
	}
	text := strings.Repeat("กขก", mostRun/2)
	want := s.Segment(nil, text)
	if want[len(want)-1] != len(text) || !slices.IsSorted(want) || !slices.Contains(want, 3*mostRun) {
		t.Errorf("%d words of %d bytes", len(want), len(text))
	}
	done := make(chan []int)
	for range 4 {
		go func() { done <- s.Segment(nil, text) }()
	}
	for range 4 {
		if got := <-done; !slices.Equal(got, want) {
			t.Error("another answer in another goroutine")
		}
	}
}

func TestOpenSegmenterRefuses(t *testing.T) {
	matrix := func(file map[string]any, name string) map[string]any { return file[name].(map[string]any) }
	for want, change := range map[string]func(file map[string]any){
		`it has no characters under "dic"; give the weights.json of a model of lstm_word_segmentation`: func(f map[string]any) { delete(f, "dic") },
		`dic: "ข" has the id 2, want each of 0 to 1 once`:                                              func(f map[string]any) { f["dic"] = map[string]int{"ก": 0, "ข": 2} },
		`dic: "ข" has the id 0, want each of 0 to 1 once`:                                              func(f map[string]any) { f["dic"] = map[string]int{"ก": 0, "ข": 0} },
		`dic: has characters of Thai and Lao, want one script`:                                         func(f map[string]any) { f["dic"] = map[string]int{"ก": 0, "ກ": 1} },
		`dic: has no character of Thai, Lao, Khmer, Myanmar`:                                           func(f map[string]any) { f["dic"] = map[string]int{"a": 0, "b": 1} },
		`mat1 has the dimensions [3 3], want [2 n]`:                                                    func(f map[string]any) { f["dic"] = map[string]int{"ก": 0} },
		`has no mat5`: func(f map[string]any) { delete(f, "mat5") },
		`mat3 has the dimensions [2 7], want [2 8]`: func(f map[string]any) {
			matrix(f, "mat3")["dim"] = []int{2, 7}
			matrix(f, "mat3")["data"] = make([]int, 14)
		},
		`mat4 has 7 numbers, want 8 of its dimensions [8]`: func(f map[string]any) { matrix(f, "mat4")["data"] = make([]int, 7) },
		`mat9 has the dimensions [4 1], want [4]`:          func(f map[string]any) { matrix(f, "mat9")["dim"] = []int{4, 1} },
		`mat8: json: cannot unmarshal string`:              func(f map[string]any) { f["mat8"] = "none" },
		`mat1 has the dimensions [3 9999999], want [3 n]`:  func(f map[string]any) { matrix(f, "mat1")["dim"] = []int{3, 9999999} },
		`is not a segmenter: json: cannot unmarshal`:       func(f map[string]any) { f["dic"] = "letters" },
	} {
		file, _ := small("ก", "ข")
		change(file)
		_, err := OpenSegmenter(saved(t, file))
		var bad *model.FileError
		if !errors.As(err, &bad) || !strings.Contains(err.Error(), want) {
			t.Errorf("got %v, want %q", err, want)
		}
	}
	if _, err := OpenSegmenter(filepath.Join(t.TempDir(), "gone")); err == nil || !strings.Contains(err.Error(), "there is no such file") {
		t.Errorf("missing file: %v", err)
	}
}

// Any bytes are a segmenter, which divides a text, or an error of one kind.
func FuzzSegmenter(f *testing.F) {
	for _, units := range [][]string{{"ก"}, {"ก", "น้ำ"}} {
		file, _ := small(units...)
		content, err := json.Marshal(file)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(content)
	}
	f.Add([]byte(`{"dic": {"ก": 0}, "mat1": {"dim": [2, 99999], "data": []}}`))
	path := filepath.Join(f.TempDir(), "weights.json")
	f.Fuzz(func(t *testing.T, content []byte) {
		if err := os.WriteFile(path, content, 0o600); err != nil {
			t.Fatal(err)
		}
		s, err := OpenSegmenter(path)
		var bad *model.FileError
		switch {
		case err != nil && !errors.As(err, &bad):
			t.Fatalf("%T: %v", err, err)
		case err == nil:
			const text = "กน้ำข\xff"
			if ends := s.Segment(nil, text); len(ends) == 0 || ends[len(ends)-1] != len(text) || !slices.IsSorted(ends) {
				t.Fatalf("words end at %v", ends)
			}
		}
	})
}
