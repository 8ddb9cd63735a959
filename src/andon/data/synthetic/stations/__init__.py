"""The six stations, in the study's order."""

from andon.data.synthetic.station import Station
from andon.data.synthetic.stations.engine_wiring import EngineWiring
from andon.data.synthetic.stations.pipe import PipeClip, PipeStaple
from andon.data.synthetic.stations.tank_screw import TankScrew
from andon.data.synthetic.stations.underbody_pipes import UnderbodyPipes
from andon.data.synthetic.stations.underbody_screw import UnderbodyScrew

__all__ = ["STATIONS"]

STATIONS: dict[str, Station] = {
    station.name: station
    for station in (EngineWiring(), PipeClip(), PipeStaple(), TankScrew(), UnderbodyPipes(), UnderbodyScrew())
}
