package client

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"net/http"
	"net/url"
	"strconv"
)

// InferRequest is a request of the V2 protocol.
type InferRequest struct {
	ID         string
	Inputs     []Tensor
	Outputs    []string // all unless given
	Parameters map[string]any
	// JSON sends and asks for tensors as JSON; else as bytes behind the header, which is faster.
	JSON bool
}

// InferResponse is an answer of the V2 protocol.
type InferResponse struct {
	ModelName    string
	ModelVersion string
	ID           string
	Parameters   map[string]any
	Outputs      []Tensor
	// Instance that answered, if known.
	Instance string
}

// Output finds an output by its name.
func (r *InferResponse) Output(name string) (*Tensor, bool) {
	for i := range r.Outputs {
		if r.Outputs[i].Name == name {
			return &r.Outputs[i], true
		}
	}

	return nil, false
}

const headerLength = "Inference-Header-Content-Length"

// Infer runs a model, which must be of a kind that may run a request twice, as those of type ONNX are.
// A status other than 200 gives an *Error.
func (c *Client) Infer(ctx context.Context, model string, in *InferRequest) (*InferResponse, error) {
	body, header, err := in.encode()
	if err != nil {
		return nil, fmt.Errorf("encode the request: %w", err)
	}

	h := http.Header{"Content-Type": {"application/json"}}
	if !in.JSON {
		h = http.Header{"Content-Type": {"application/octet-stream"}, headerLength: {strconv.Itoa(header)}}
	}

	resp, err := c.Do(ctx, &Request{Path: "/v2/models/" + url.PathEscape(model) + "/infer", Header: h, Body: body, Repeatable: true})
	if err != nil {
		return nil, err
	}

	if resp.Status != http.StatusOK {
		return nil, resp.failure()
	}

	out, err := decodeInfer(resp)
	if err != nil {
		return nil, fmt.Errorf("read the answer: %w", err)
	}

	return out, nil
}

// Predict sends a body to the model's own API, which is "/" unless the package says otherwise. A status
// of 400 and above gives an *Error.
func (c *Client) Predict(ctx context.Context, contentType string, body []byte) ([]byte, error) {
	resp, err := c.Do(ctx, &Request{Header: http.Header{"Content-Type": {contentType}}, Body: body})
	if err != nil {
		return nil, err
	}

	if resp.Status >= http.StatusBadRequest {
		return nil, resp.failure()
	}

	return resp.Body, nil
}

// failure is the error that an answer tells.
func (r *Response) failure() *Error {
	e := &Error{
		Status: r.Status, Code: r.Header.Get("X-Error-Code"), Msg: http.StatusText(r.Status), RequestID: r.Header.Get("X-Request-Id"),
	}

	var b struct {
		Code  string          `json:"error_code"`
		Msg   string          `json:"error_msg"`
		Error json.RawMessage `json:"error"`
	}
	if json.Unmarshal(r.Body, &b) != nil {
		return e
	}

	var text string

	switch {
	case b.Msg != "":
		e.Code, e.Msg = b.Code, b.Msg
	case json.Unmarshal(b.Error, &text) == nil && text != "":
		e.Msg = text
	}

	return e
}

// wireTensor is a tensor in JSON.
type wireTensor struct {
	Name       string          `json:"name"`
	Shape      []int64         `json:"shape"`
	Datatype   string          `json:"datatype"`
	Parameters map[string]any  `json:"parameters,omitempty"`
	Data       json.RawMessage `json:"data,omitempty"`
}

type wireRequest struct {
	ID         string         `json:"id,omitempty"`
	Parameters map[string]any `json:"parameters,omitempty"`
	Inputs     []wireTensor   `json:"inputs"`
	Outputs    []wireOutput   `json:"outputs,omitempty"`
}

type wireOutput struct {
	Name       string         `json:"name"`
	Parameters map[string]any `json:"parameters,omitempty"`
}

// encode gives the body and the length of its JSON part.
func (in *InferRequest) encode() (body []byte, header int, err error) {
	w := wireRequest{ID: in.ID, Parameters: map[string]any{}}
	maps.Copy(w.Parameters, in.Parameters)

	var raw [][]byte

	for i := range in.Inputs {
		t := &in.Inputs[i]
		if err := t.check(); err != nil {
			return nil, 0, err
		}

		wt := wireTensor{Name: t.Name, Shape: t.Shape, Datatype: t.Datatype}

		if in.JSON {
			if wt.Data, err = t.json(); err != nil {
				return nil, 0, err
			}
		} else {
			wt.Parameters = map[string]any{"binary_data_size": len(t.Raw)}
			raw = append(raw, t.Raw)
		}

		w.Inputs = append(w.Inputs, wt)
	}

	for _, name := range in.Outputs {
		w.Outputs = append(w.Outputs, wireOutput{name, map[string]any{"binary_data": !in.JSON}})
	}

	if !in.JSON && len(in.Outputs) == 0 {
		w.Parameters["binary_data_output"] = true
	}

	head, err := json.Marshal(w)
	if err != nil {
		return nil, 0, fmt.Errorf("parameters: %w", err)
	}

	return append(head, bytes.Join(raw, nil)...), len(head), nil
}

func decodeInfer(resp *Response) (*InferResponse, error) {
	head, rest := resp.Body, []byte(nil)

	if text := resp.Header.Get(headerLength); text != "" {
		n, err := strconv.Atoi(text)
		if err != nil || n < 0 || n > len(resp.Body) {
			return nil, fmt.Errorf("%s is %q", headerLength, text)
		}

		head, rest = resp.Body[:n], resp.Body[n:]
	}

	var w struct {
		ModelName    string         `json:"model_name"`
		ModelVersion string         `json:"model_version"`
		ID           string         `json:"id"`
		Parameters   map[string]any `json:"parameters"`
		Outputs      []wireTensor   `json:"outputs"`
	}
	if err := json.Unmarshal(head, &w); err != nil {
		return nil, fmt.Errorf("JSON: %w", err)
	}

	out := &InferResponse{ModelName: w.ModelName, ModelVersion: w.ModelVersion, ID: w.ID, Parameters: w.Parameters, Instance: resp.Instance}

	for i := range w.Outputs {
		t, left, err := w.Outputs[i].tensor(rest)
		if err != nil {
			return nil, err
		}

		rest = left

		out.Outputs = append(out.Outputs, *t)
	}

	return out, nil
}

// tensor takes the values from JSON, or from the front of rest.
func (w *wireTensor) tensor(rest []byte) (*Tensor, []byte, error) {
	t := &Tensor{Name: w.Name, Shape: w.Shape, Datatype: w.Datatype}

	if size, ok := w.Parameters["binary_data_size"].(float64); ok {
		n := int(size)
		if n < 0 || n > len(rest) {
			return nil, nil, fmt.Errorf("output %q has %d bytes of %d", w.Name, len(rest), n)
		}

		t.Raw, rest = rest[:n:n], rest[n:]

		return t, rest, t.check()
	}

	if err := t.fromJSON(w.Data); err != nil {
		return nil, nil, err
	}

	return t, rest, t.check()
}
