#!/usr/bin/env bash
# Makes the sample video from ffmpeg's test sources: HLS with two renditions (fMP4 and TS), DASH, and an MP4.
set -euo pipefail
cd "$(dirname "$0")"
rm -rf hls hls-ts dash video.mp4
seconds=8
input=(-f lavfi -i "testsrc2=size=640x360:rate=25:duration=$seconds" -f lavfi -i "sine=frequency=440:duration=$seconds")
h264=(-c:v libx264 -profile:v main -preset slower -pix_fmt yuv420p -g 50 -keyint_min 50 -sc_threshold 0 -bf 2)
aac=(-c:a aac -ac 1 -ar 44100 -b:a 48k)
ladder=(-filter_complex "[0:v]split[a][b];[b]scale=320:180[small]"
  -map "[a]" -map 1:a -map "[small]" -map 1:a
  -b:v:0 320k -maxrate:v:0 400k -bufsize:v:0 640k -b:v:1 110k -maxrate:v:1 150k -bufsize:v:1 220k)
hls=(-f hls -hls_time 2 -hls_playlist_type vod -hls_flags independent_segments -master_pl_name master.m3u8
  -var_stream_map "v:0,a:0,name:360p v:1,a:1,name:180p")
quiet=(-hide_banner -loglevel error -nostdin -y -fflags +bitexact -flags:v +bitexact -flags:a +bitexact)

ffmpeg "${quiet[@]}" "${input[@]}" "${ladder[@]}" "${h264[@]}" "${aac[@]}" "${hls[@]}" \
  -hls_segment_type fmp4 -hls_fmp4_init_filename init.mp4 -hls_segment_filename 'hls/%v/segment%d.m4s' hls/%v/playlist.m3u8
ffmpeg "${quiet[@]}" "${input[@]}" "${ladder[@]}" "${h264[@]}" "${aac[@]}" "${hls[@]}" \
  -hls_segment_filename 'hls-ts/%v/segment%d.ts' hls-ts/%v/playlist.m3u8
mkdir dash
ffmpeg "${quiet[@]}" "${input[@]}" -b:v 200k -maxrate 260k -bufsize 400k "${h264[@]}" "${aac[@]}" \
  -vf scale=320:180 -f dash -seg_duration 2 -use_template 1 -use_timeline 1 \
  -init_seg_name 'init-$RepresentationID$.m4s' -media_seg_name 'segment-$RepresentationID$-$Number$.m4s' dash/manifest.mpd
ffmpeg "${quiet[@]}" "${input[@]}" -b:v 320k "${h264[@]}" "${aac[@]}" -movflags +faststart video.mp4
du -sh hls hls-ts dash video.mp4
