{{- define "freshet.name" -}}
{{- if contains "freshet" .Release.Name }}{{ .Release.Name | trunc 50 | trimSuffix "-" }}{{ else }}{{ printf "%s-freshet" .Release.Name | trunc 50 | trimSuffix "-" }}{{ end }}
{{- end }}
{{- define "freshet.selector" -}}
app.kubernetes.io/name: freshet
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end }}
{{- define "freshet.labels" -}}
{{ include "freshet.selector" . }}
{{ include "freshet.commonLabels" . }}
{{- end }}
{{- define "freshet.commonLabels" -}}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version }}
{{- end }}
{{- define "freshet.gateway" -}}
{{ include "freshet.name" . }}-gateway
{{- end }}
{{- define "freshet.gatewaySelector" -}}
app.kubernetes.io/name: freshet-gateway
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end }}
{{- define "freshet.gatewayLabels" -}}
{{ include "freshet.gatewaySelector" . }}
{{ include "freshet.commonLabels" . }}
{{- end }}
{{- define "freshet.tally" -}}
{{ include "freshet.name" . }}-tally
{{- end }}
{{- define "freshet.tallySelector" -}}
app.kubernetes.io/name: freshet-tally
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end }}
{{- define "freshet.tallyLabels" -}}
{{ include "freshet.tallySelector" . }}
{{ include "freshet.commonLabels" . }}
{{- end }}
{{- /* what the pods of workers, gateways and the tally share */}}
{{- define "freshet.pod" -}}
{{- with .Values.imagePullSecrets }}
imagePullSecrets: {{- toYaml . | nindent 2 }}
{{- end }}
securityContext:
  runAsNonRoot: true
  runAsUser: 10001
  runAsGroup: 10001
  fsGroup: 10001
  fsGroupChangePolicy: OnRootMismatch
  seccompProfile: {type: RuntimeDefault}
{{- if .Values.bundle.initImage }}
initContainers:
  - name: bundle
    image: {{ .Values.bundle.initImage | quote }}
    {{- with .Values.bundle.initCommand }}
    command: {{- toYaml . | nindent 6 }}
    {{- end }}
    {{- include "freshet.secured" . | nindent 4 }}
    volumeMounts:
      - {name: bundles, mountPath: /bundles}
{{- end }}
{{- end }}
{{- define "freshet.volumes" -}}
- name: bundles
  {{- if .Values.bundle.initImage }}
  emptyDir: {}
  {{- else }}
  {{- toYaml .Values.bundle.volume | nindent 2 }}
  {{- end }}
- name: tmp
  emptyDir: {}
{{- with .Values.secretName }}
- name: secrets
  secret: {secretName: {{ . | quote }}, defaultMode: 0440}
{{- end }}
{{- with .Values.tlsSecretName }}
- name: tls
  secret: {secretName: {{ . | quote }}, defaultMode: 0440}
{{- end }}
{{- end }}
{{- define "freshet.mounts" -}}
- {name: bundles, mountPath: /bundles, readOnly: true}
- {name: tmp, mountPath: /tmp}
{{- if .Values.secretName }}
- {name: secrets, mountPath: /run/secrets/freshet, readOnly: true}
{{- end }}
{{- if .Values.tlsSecretName }}
- {name: tls, mountPath: /run/tls, readOnly: true}
{{- end }}
{{- end }}
{{- define "freshet.secured" -}}
securityContext:
  allowPrivilegeEscalation: false
  readOnlyRootFilesystem: true
  capabilities: {drop: [ALL]}
{{- end }}
{{- define "freshet.image" -}}
image: "{{ .Values.image.repository }}:{{ .Values.image.tag | default .Chart.AppVersion }}"
imagePullPolicy: {{ .Values.image.pullPolicy }}
{{- end }}
{{- /* a dict of settings -> variables */}}
{{- define "freshet.settings" -}}
{{- range $name, $value := . }}
- name: FRESHET_{{ $name | upper }}
  value: {{ kindIs "string" $value | ternary $value (toJson $value) | quote }}
{{- end }}
{{- end }}
