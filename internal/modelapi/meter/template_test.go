package meter

import (
	"net/http"
	"testing"
)

// What a message says does not depend on the one before, however alike they are.
func TestAMessageIsReadForItselfAmongItsLike(t *testing.T) {
	const first = `{"index":0,"content":"ab","sequence_number":7,"stop":false,"tokens_predicted":5,"tokens_evaluated":12}`
	for _, second := range []string{
		first,
		`{"index":0,"content":"","sequence_number":8,"stop":false,"tokens_predicted":5,"tokens_evaluated":12}`,
		`{"index":0,"content":"\"\\","sequence_number":10,"stop":false,"tokens_predicted":19,"tokens_evaluated":12}`,
		`{"index":1,"content":"ab","sequence_number":7,"stop":false,"tokens_predicted":5,"tokens_evaluated":12}`,
		`{"index":0,"content":"ab","sequence_number":7,"stop":true,"tokens_predicted":6,"tokens_evaluated":12}`,
		`{"index":0,"content":"ab","sequence_number":null,"stop":false,"tokens_predicted":null,"tokens_evaluated":12}`,
		`{"index":0,"content":"ab","sequence_number":7,"stop":false,"tokens_predicted":-6,"tokens_evaluated":12}`,
		`{"index":0,"content":"ab","sequence_number":7,"stop":false,"tokens_predicted":6.5,"tokens_evaluated":12}`,
		`{"index":0,"content":"ab","sequence_number":7,"stop":false,"tokens_predicted":06,"tokens_evaluated":12}`,
		`{"index":0,"content":"ab","sequence_number":7,"stop":false,"tokens_predicted":9999999999999999,"tokens_evaluated":12}`,
		`{"index":0,"content":"ab","sequence_number":7,"stop":false,"tokens_predicted":6,"tokens_evaluated":12} `,
		`{"index":0,"content":"ab","sequence_number":7,"stop":false,"tokens_predicted":6,"tokens_evaluated":12}x`,
		`{"index":0,"content":"ab","sequence_number":7,"stop":false,"tokens_predicted":6,"tokens_evaluated":1`,
		`{"index":0,"content":"ab`,
		`{"index":0,"content":["ab"],"sequence_number":7,"stop":false,"tokens_predicted":5,"tokens_evaluated":12}`,
		`{"index":0,"content":null,"error":"x"}`,
		``,
	} {
		for _, stream := range []string{
			"data: " + first + "\n\ndata: " + second + "\n\ndata: " + first + "\n\n",
			"data: " + first + "\n\nevent: error\ndata: " + second + "\n\ndata: " + first + "\n\n",
			"data: " + first + "\n\ndata: " + second + "\ndata:}\n\ndata: " + first + "\n\n",
			"data: " + first + "\r\n\r\ndata: " + second + "\r\n\r\ndata: " + first + "\r\n\r\n",
		} {
			whole, apart := New(textStream, http.StatusOK, nil), New(textStream, http.StatusOK, nil)
			feed(whole, stream, len(stream))
			feed(apart, stream, 1) // in single bytes every message is read in full
			if got, want := whole.Running(), apart.Running(); got != want || whole.Failed() != apart.Failed() {
				t.Errorf("%q: %+v, want %+v", stream, got, want)
			}
			if got, want := whole.Finish(true), apart.Finish(true); got != want {
				t.Errorf("%q: %+v, want %+v", stream, got, want)
			}
		}
	}
}
