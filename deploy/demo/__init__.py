"""The demo: real events of a real data set through a real Kafka and a worker process, watched live.

source     which data: a folder, the download, or a generated world
trained    train and export once for this data and this code, used again by later runs
folders    a fresh folder for each run; what a crashed run left behind is cleaned up
processes  the worker as a process of its own
feed       events in, slates out, as any client of freshet would do it
warmup     every user's history but the last choices
loop       which held-back event may be sent next (closed loop per user). Pure
replay     the held-back events, timed and judged
judge      hit rate beside popularity's. Pure
board      what there is to see; view draws it on a terminal
story      all steps in order
"""
