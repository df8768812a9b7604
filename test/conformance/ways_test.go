package conformance_test

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"strconv"

	pb "github.com/sluice-gateway/sluice/runtime/codec/inferencepb"
	"github.com/sluice-gateway/sluice/runtime/engine"
)

// clients ask the worker, each in its own way.
type clients struct {
	base string
	http *http.Client
	grpc pb.GRPCInferenceServiceClient
}

// wireTensor is a tensor in V2's JSON.
type wireTensor struct {
	Name       string            `json:"name"`
	Datatype   string            `json:"datatype"`
	Shape      []int64           `json:"shape"`
	Parameters map[string]any    `json:"parameters,omitempty"`
	Data       []json.RawMessage `json:"data,omitzero"`
}

type wireRequest struct {
	Parameters map[string]any `json:"parameters,omitempty"`
	Inputs     []wireTensor   `json:"inputs"`
}

type wireAnswer struct {
	Outputs []wireTensor `json:"outputs"`
}

// metadata asks what the model takes and gives.
func (c *clients) metadata(ctx context.Context, model string) (inputs, outputs []info, err error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, c.base+"/v2/models/"+model, http.NoBody)
	if err != nil {
		return nil, nil, err
	}

	_, body, err := c.do(req)
	if err != nil {
		return nil, nil, err
	}

	var meta struct{ Inputs, Outputs []info }
	if err := json.Unmarshal(body, &meta); err != nil {
		return nil, nil, fmt.Errorf("metadata %s: %w", body, err)
	}

	return meta.Inputs, meta.Outputs, nil
}

func (c *clients) do(req *http.Request) (http.Header, []byte, error) {
	resp, err := c.http.Do(req)
	if err != nil {
		return nil, nil, err
	}
	defer resp.Body.Close()

	body, err := io.ReadAll(resp.Body)
	if err != nil {
		return nil, nil, err
	}

	if resp.StatusCode != http.StatusOK {
		return nil, nil, fmt.Errorf("status %d: %.300s", resp.StatusCode, body)
	}

	return resp.Header, body, nil
}

func (c *clients) infer(ctx context.Context, model string, body []byte, jsonLen int) (http.Header, []byte, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, c.base+"/v2/models/"+model+"/infer", bytes.NewReader(body))
	if err != nil {
		return nil, nil, err
	}

	req.Header.Set("Content-Type", "application/json")

	if jsonLen > 0 {
		req.Header.Set("Content-Type", "application/octet-stream")
		req.Header.Set("Inference-Header-Content-Length", strconv.Itoa(jsonLen))
	}

	return c.do(req)
}

func (c *clients) viaJSON(ctx context.Context, model string, in []engine.Tensor) ([]engine.Tensor, error) {
	req := wireRequest{Inputs: []wireTensor{}}
	for i := range in {
		t := &in[i]
		req.Inputs = append(req.Inputs, wireTensor{Name: t.Name, Datatype: t.Type.String(), Shape: t.Shape, Data: values(t)})
	}

	body, err := json.Marshal(req)
	if err != nil {
		return nil, err
	}

	_, answer, err := c.infer(ctx, model, body, 0)
	if err != nil {
		return nil, err
	}

	var a wireAnswer
	if err := json.Unmarshal(answer, &a); err != nil {
		return nil, fmt.Errorf("%.200s: %w", answer, err)
	}

	out := make([]engine.Tensor, len(a.Outputs))

	for i, o := range a.Outputs {
		out[i] = engine.Tensor{Name: o.Name, Type: engine.ParseDataType(o.Datatype), Shape: o.Shape}
		if err := fill(&out[i], o.Data); err != nil {
			return nil, err
		}
	}

	return out, nil
}

func (c *clients) viaBinary(ctx context.Context, model string, in []engine.Tensor) ([]engine.Tensor, error) {
	req := wireRequest{Parameters: map[string]any{"binary_data_output": true}, Inputs: []wireTensor{}}

	var data []byte

	for i := range in {
		t := &in[i]
		req.Inputs = append(req.Inputs, wireTensor{
			Name: t.Name, Datatype: t.Type.String(), Shape: t.Shape, Parameters: map[string]any{"binary_data_size": len(t.Data)},
		})
		data = append(data, t.Data...)
	}

	head, err := json.Marshal(req)
	if err != nil {
		return nil, err
	}

	header, answer, err := c.infer(ctx, model, append(head, data...), len(head))
	if err != nil {
		return nil, err
	}

	length := header.Get("Inference-Header-Content-Length")
	if length == "" {
		length = strconv.Itoa(len(answer)) // there are no values, so all is the head
	}

	n, err := strconv.Atoi(length)
	if err != nil || n > len(answer) {
		return nil, fmt.Errorf("answer of %d bytes with a head of %q", len(answer), length)
	}

	return split(answer[:n], answer[n:])
}

// split takes the tensors of a binary answer apart.
func split(head, data []byte) ([]engine.Tensor, error) {
	var a wireAnswer
	if err := json.Unmarshal(head, &a); err != nil {
		return nil, fmt.Errorf("%.200s: %w", head, err)
	}

	out := make([]engine.Tensor, len(a.Outputs))

	for i, o := range a.Outputs {
		size, ok := o.Parameters["binary_data_size"].(float64)
		if !ok && o.Data != nil && len(o.Data) == 0 {
			ok = true // an output without values may say so in JSON
		}

		if !ok || size < 0 || int(size) > len(data) {
			return nil, fmt.Errorf("output %q: binary_data_size %v, %d bytes left", o.Name, o.Parameters["binary_data_size"], len(data))
		}

		out[i] = engine.Tensor{Name: o.Name, Type: engine.ParseDataType(o.Datatype), Shape: o.Shape, Data: data[:int(size)]}
		data = data[int(size):]
	}

	if len(data) > 0 {
		return nil, fmt.Errorf("%d bytes after the last output", len(data))
	}

	return out, nil
}

func (c *clients) viaGRPC(ctx context.Context, model string, in []engine.Tensor) ([]engine.Tensor, error) {
	req := &pb.ModelInferRequest{ModelName: model}

	for i := range in {
		t := &in[i]
		req.Inputs = append(req.Inputs, &pb.ModelInferRequest_InferInputTensor{Name: t.Name, Datatype: t.Type.String(), Shape: t.Shape})
		req.RawInputContents = append(req.RawInputContents, t.Data)
	}

	resp, err := c.grpc.ModelInfer(ctx, req)
	if err != nil {
		return nil, err
	}

	if len(resp.GetOutputs()) != len(resp.GetRawOutputContents()) {
		return nil, fmt.Errorf("%d outputs, %d contents", len(resp.GetOutputs()), len(resp.GetRawOutputContents()))
	}

	out := make([]engine.Tensor, len(resp.GetOutputs()))
	for i, o := range resp.GetOutputs() {
		out[i] = engine.Tensor{
			Name: o.GetName(), Type: engine.ParseDataType(o.GetDatatype()), Shape: o.GetShape(), Data: resp.GetRawOutputContents()[i],
		}
	}

	return out, nil
}
