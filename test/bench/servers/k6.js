// One request after another from each virtual user, for the comparison of load tools.
import http from 'k6/http';

export default function () {
  http.get(__ENV.URL);
}
